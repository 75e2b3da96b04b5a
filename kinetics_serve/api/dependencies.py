"""What handlers are given: the services, who asks, and the request's body."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.access import restricted
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.errors import ApiError
from kinetics_serve.requests.services import Services

_bearer = HTTPBearer(auto_error=False, description="An API key, where the server keeps a ledger.")
_header = APIKeyHeader(name="x-api-key", auto_error=False, description="The same, as Anthropic's clients send it.")


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


def _no_key(message: str) -> ApiError:
    return ApiError(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})
