"""What handlers are given: the services, who asks, and the request's body."""

import hashlib
import hmac
import logging
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.access import restricted
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.errors import ApiError
from kinetics_serve.requests.services import Services

if TYPE_CHECKING:  # a front-end without a ledger loads no SQL
    from kinetics_serve.ledger.ledger import Ledger

logger = logging.getLogger(__name__)

_bearer = HTTPBearer(auto_error=False, description="An API key, where the server keeps a ledger.")
_header = APIKeyHeader(name="x-api-key", auto_error=False, description="The same, as Anthropic's clients send it.")
_administrators = HTTPBearer(
    auto_error=False, scheme_name="Administrator", description="The server's `--admin-api-key`. No tenant's key."
)


async def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


AppServices = Annotated[Services, Depends(services_of)]


async def authenticated(
    request: Request,
    services: AppServices,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Tenant | None:
    """Whose key it is, noted for the access log. Raises ApiError 401.

    Without a ledger nobody needs a key, and nobody is a tenant.
    """
    if services.ledger is None:
        return None
    key = bearer.credentials if bearer is not None else header
    if key is None:
        raise _no_key("no API key: send the header Authorization: Bearer KEY, or x-api-key: KEY")
    tenant = await services.ledger.owner(key)
    if tenant is None:
        raise _no_key("the API key is not valid: it was mistyped or revoked")
    request.state.tenant = tenant
    return tenant


Asker = Annotated[Tenant | None, Depends(authenticated)]


async def call_of(request: Request, services: AppServices, tenant: Asker) -> Call:
    """A request with a JSON body. Raises ApiError, and what `restricted` does."""
    content, body = await request_body.read_json(request, services.settings)
    if tenant is not None:
        body = restricted(body, tenant, services.pool.pick(None)[1].name)
    return Call(request, services, tenant, content, body)


JsonCall = Annotated[Call, Depends(call_of)]


async def administered(request: Request, services: AppServices) -> "tuple[Ledger, str]":
    """The ledger, and the key of who administers it over HTTP. Raises ApiError 404 where nobody does."""
    if b"%" in request.scope["raw_path"]:  # a gateway that keeps this path from others may know one spelling only
        raise ApiError(404, "not_found", f"no path of the administrator's has a % in it: ask for {request.url.path}")
    key = services.settings.admin_api_key
    if services.ledger is None or key is None:
        raise ApiError(
            404,
            "not_found",
            "this server is not administered over HTTP: start it with --ledger and, in KINETICS_ADMIN_API_KEY or the "
            "file that KINETICS_ADMIN_API_KEY_FILE names, a key for its administrator",
        )
    return services.ledger, key


async def administrator(
    request: Request,
    known: Annotated["tuple[Ledger, str]", Depends(administered)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_administrators)],
) -> "Ledger":
    """The ledger, for its administrator. Raises ApiError 401 for anybody else, and what `administered` does."""
    ledger, key = known
    if bearer is None:
        raise _no_key("no administrator's key: send the header Authorization: Bearer KEY")
    if not _same(bearer.credentials, key):
        logger.warning("%s is not the administrator: the key is wrong", client_of(request))
        raise _no_key("this is not the administrator's key: it is the one that the server was started with")
    return ledger


Administered = Annotated["Ledger", Depends(administrator)]


def client_of(request: Request) -> str:
    """The address that a request comes from, for the log."""
    return request.client.host if request.client is not None else "somebody"


def _same(given: str, key: str) -> bool:
    """In a time that depends on neither: not on their lengths, as hashes are compared."""
    one, other = (hashlib.sha256(each.encode(errors="surrogatepass")).digest() for each in (given, key))
    return hmac.compare_digest(one, other)


def _no_key(message: str) -> ApiError:
    return ApiError(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})
