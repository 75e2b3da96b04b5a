"""What who asks may use."""

import hashlib

from kinetics_serve.engine.pool import AUTO_MODEL, ModelNotFound
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.requests.errors import invalid


def may_use(tenant: Tenant | None, model: str) -> bool:
    """Where the server keeps no ledger, and so nobody is a tenant: everything."""
    return tenant is None or tenant.may_use(model)


def check_model(tenant: Tenant | None, model: str) -> None:
    """Raises ModelNotFound for one that the tenant may not use: it need not know that there is such a model."""
    if tenant is not None and not tenant.may_use(model):
        allowed = ", ".join(repr(name) for name in tenant.limits.models or ()) or "no model"
        raise ModelNotFound(f"the model {model!r} is not served here, or not to you; you may use {allowed}")


def restricted(body: Json, tenant: Tenant, default_model: str | None) -> Json:
    """The tenant's request as it may go on: to a model of its own, and to its own part of the prefix cache.

    A client may state a `cache_salt` to keep its users apart too. Raises ModelNotFound and ApiError.
    """
    stated = body.get("model")
    model = default_model if stated in (None, "") else stated  # to vLLM, an empty name is none
    if not isinstance(model, str):
        raise invalid(f"model must be a text, given: {model!r:.100}", "model")
    if model != AUTO_MODEL:  # which chooses among the tenant's own
        check_model(tenant, model)
    client_salt = body.get("cache_salt")
    if client_salt is not None and not isinstance(client_salt, str):
        raise invalid("cache_salt must be a text", "cache_salt")
    salt = tenant.cache_salt
    if client_salt:  # hashed: vLLM takes 128 characters, and not all of them
        salt = hashlib.sha256(f"{salt}:{client_salt}".encode(errors="surrogatepass")).hexdigest()
    body = {key: value for key, value in body.items() if key != "priority"}  # the queue is fair between tenants
    return body | {"model": model, "cache_salt": salt}
