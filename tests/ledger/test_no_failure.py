"""No request that the OpenAPI document allows makes a server with a ledger fail."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from kinetics_serve.api.app import create_app
from kinetics_serve.api.schemas.openapi import STREAMED
from tests.arms import PAPER_B200
from tests.ledger.server import FrontEnd, bearer
from tests.openapi_document import operations

METERED = [
    operation for operation in operations(create_app(["http://127.0.0.1:9"], PAPER_B200)) if operation.path in STREAMED
]


@pytest.mark.parametrize("operation", METERED, ids=lambda operation: operation.label)
def test_no_metered_request_makes_the_server_fail(server: FrontEnd, operation: Any) -> None:
    key = server.key(f"any-{operation.label}")

    @given(case=operation.as_strategy())
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def check(case: Any) -> None:
        answer = case.call(base_url=server.url, headers=bearer(key), timeout=20)
        assert answer.status_code < 500, answer.text
        assert answer.status_code != 401

    check()
    usage = server.usage(key)
    assert (usage["reserved_eflops"], usage["running_requests"]) == (0, 0)
