"""A client's request, as every route that takes a body gets it."""

from dataclasses import dataclass

from fastapi import Request

from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.requests.access import may_use
from kinetics_serve.requests.services import Services


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks for what, and what there is to answer it with."""

    request: Request
    """As it came: for its path and its headers, and to notice when its client leaves."""

    services: Services

    tenant: Tenant | None
    """None where the server keeps no ledger."""

    content: bytes
    """The body as it came."""

    body: Json
    """The object in it; a tenant's, as it may go on: see `access.restricted`."""

    def may_use(self, model: str) -> bool:
        return may_use(self.tenant, model)
