"""Tenants, keys, quotas and spend over HTTP, on both databases."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from kinetics_serve.api.app import create_app
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.ledger.outbox_file import OutboxFile
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm
from tests.ledger.conftest import Clock, settle
from tests.ledger.server import QUESTION, bearer, check_error
from tests.openapi_document import operations, undescribed
from tests.serving import serving

ADMIN = "an-administrators-key"
PLACE = "/v1/kinetics/admin"
ROUTES = [("GET", "/tenants"), ("POST", "/tenants"), ("POST", "/keys"), ("DELETE", "/keys/1"), ("GET", "/usage")]
HOUR_PRICE = replace(PAPER_B200, dollars_per_hour=3.6)


def app_on(ledger: Ledger | None, vllm: FakeVllm, outbox: Path, key: str | None = ADMIN) -> Any:
    bills = Outbox(OutboxFile(outbox))
    return create_app([vllm.url], HOUR_PRICE, settings=Settings(admin_api_key=key), ledger=ledger, outbox=bills)


@pytest.fixture
async def client(ledger: Ledger, vllm: FakeVllm, tmp_path: Path, patience: None) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app_on(ledger, vllm, tmp_path / "outbox")) as client:
        client.headers.update(bearer(ADMIN))
        yield client


async def set_tenant(client: httpx.AsyncClient, name: str, **limits: Any) -> dict[str, Any]:
    answer = await client.post(f"{PLACE}/tenants", json={"name": name} | limits)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def new_key(client: httpx.AsyncClient, tenant: str, name: str = "") -> dict[str, Any]:
    answer = await client.post(f"{PLACE}/keys", json={"tenant": tenant, "name": name})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def accounts(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get(f"{PLACE}/tenants")
    assert answer.status_code == 200, answer.text
    return {account["name"]: account for account in answer.json()["data"]}


async def test_a_tenants_whole_life(client: httpx.AsyncClient, vllm: FakeVllm) -> None:
    made = await set_tenant(client, "acme", window_eflops=10**30, concurrency=3)
    assert made["limits"]["window_eflops"] == 10**30
    assert made["limits"]["month_eflops"] is None
    key = await new_key(client, "acme", "production")
    asked = await client.post("/v1/chat/completions", json=QUESTION, headers=bearer(key["key"]))
    assert asked.status_code == 200, asked.text
    account = (await accounts(client))["acme"]
    assert account["window_spent_eflops"] == account["month_spent_eflops"] > 0
    assert (account["reserved_eflops"], account["running_requests"]) == (0, 0)
    assert account["keys"] == [{name: value for name, value in key.items() if name != "key"}]
    (spent,) = (await client.get(f"{PLACE}/usage")).json()["data"]
    assert (spent["tenant"], spent["strategy"], spent["requests"]) == ("acme", "pass_through", 1)
    assert spent["eflops"] == account["month_spent_eflops"]
    await set_tenant(client, "acme", request_eflops=1)
    check_error(
        await client.post("/v1/chat/completions", json=QUESTION, headers=bearer(key["key"])), 400, "invalid_request"
    )
    revoked = await client.delete(f"{PLACE}/keys/{key['id']}")
    assert revoked.json()["revoked_at"] is not None
    refused = await client.post("/v1/chat/completions", json=QUESTION, headers=bearer(key["key"]))
    check_error(refused, 401, "invalid_api_key")
    check_error(await client.delete(f"{PLACE}/keys/{key['id']}"), 404, "not_found", f"id {key['id']}")


@pytest.mark.parametrize("path", ["/v1/kinetics/%61dmin/tenants", "/v1/%6binetics/admin/tenants", "/%61dmin"])
async def test_its_paths_have_one_spelling_which_a_gateway_can_keep_from_others(
    client: httpx.AsyncClient, path: str
) -> None:
    check_error(await client.get(path), 404, "not_found", "%")


async def test_limits_that_are_not_stated_stay_and_null_lifts_one(client: httpx.AsyncClient) -> None:
    first = {"window_eflops": "4e30", "window_s": 5400, "month_eflops": 1e30, "concurrency": 3, "models": ["a", "b"]}
    await set_tenant(client, "acme", **first)
    assert (await set_tenant(client, "acme", window_eflops=None, models=None))["limits"] == {
        "window_eflops": None,
        "window_s": 5400,
        "month_eflops": 10**30,
        "request_eflops": None,
        "concurrency": 3,
        "models": None,
    }
    assert (await set_tenant(client, "acme"))["limits"]["concurrency"] == 3


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("tenants", {}, "name: Field required"),
        ("tenants", {"name": ""}, "at least 1 character"),
        ("tenants", {"name": "a\nb"}, "printable"),
        ("tenants", {"name": "a", "window_eflops": "much"}, "window_eflops: expected whole eFLOPs, such as 4e15"),
        ("tenants", {"name": "a", "window_eflops": -1}, "given: -1"),
        ("tenants", {"name": "a", "month_eflops": 0.5}, "given: 0.5"),
        ("tenants", {"name": "a", "month_eflops": True}, "valid integer; given: True"),
        ("tenants", {"name": "a", "month_eflops": "1e40"}, "below 1e40"),
        ("tenants", {"name": "a", "window_s": 0}, "greater than or equal to 1"),
        ("tenants", {"name": "a", "window_s": None}, "window_s"),
        ("tenants", {"name": "a", "concurrency": 10**7}, "less than or equal to 1000000"),
        ("tenants", {"name": "a", "models": "m"}, "models"),
        ("tenants", {"name": "a", "models": ["\x00"]}, "printable"),
        ("tenants", {"name": "a", "quota": 1}, "quota"),
        ("keys", {"tenant": "nobody"}, "there is no tenant 'nobody'"),
        ("keys", {"tenant": "nobody", "name": "a" * 101}, "at most 100"),
        ("keys", {"tenant": 7}, "tenant"),
        ("keys", [], "JSON object"),
    ],
)
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_mistake_is_explained(client: httpx.AsyncClient, path: str, body: Any, words: str) -> None:
    answer = await client.post(f"{PLACE}/{path}", json=body)
    missing = "there is no" in words
    check_error(answer, 404 if missing else 400, "not_found" if missing else "invalid_request", words)


async def test_spending_is_of_whom_and_when_it_is_asked_for(
    client: httpx.AsyncClient, ledger: Ledger, clock: Clock
) -> None:
    for number, name in enumerate(("acme", "other"), 1):
        await set_tenant(client, name)
        await settle(ledger, f"{number:032x}", await ledger.tenant(name), number)
    clock.now += 86_400
    await settle(ledger, f"{7:032x}", await ledger.tenant("acme"), 7)

    async def rows(**query: str) -> list[tuple[str, str, int]]:
        answer = await client.get(f"{PLACE}/usage", params=query)
        assert answer.status_code == 200, answer.text
        return [(row["tenant"], row["day"], row["eflops"]) for row in answer.json()["data"]]

    first = [("acme", "2026-01-01", 1), ("other", "2026-01-01", 2)]
    assert await rows() == [first[0], ("acme", "2026-01-02", 7), first[1]]
    assert await rows(until="2026-01-01") == first
    assert await rows(since="2026-01-02", tenant="acme") == [("acme", "2026-01-02", 7)]
    assert await rows(tenant="other", since="2026-01-02") == []
    for name in ("nobody", "\x00"):
        check_error(await client.get(f"{PLACE}/usage", params={"tenant": name}), 404, "not_found", "no tenant")
    check_error(await client.get(f"{PLACE}/usage", params={"since": "soon"}), 400, "invalid_request", "soon")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_money_stands_beside_eflops_of_models_that_have_a_price(
    client: httpx.AsyncClient, ledger: Ledger, vllm: FakeVllm
) -> None:
    await set_tenant(client, "acme")
    key = await new_key(client, "acme")
    await client.post("/v1/chat/completions", json=QUESTION, headers=bearer(key["key"]))
    await settle(ledger, f"{1:032x}", await ledger.tenant("acme"), 5)  # on a model that is served no more
    rate = (await client.get(f"{PLACE}/tenants")).json()["dollars_per_eflop"]
    assert rate == pytest.approx(3.6 / 3600 / PAPER_B200.flops)
    rows = {row["model"]: row for row in (await client.get(f"{PLACE}/usage")).json()["data"]}
    assert rows[MODEL]["dollars"] == rows[MODEL]["eflops"] * rate > 0
    assert rows["m"]["dollars"] is None


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_nobody_else_is_let_in(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    await set_tenant(client, "acme")
    tenants_own = (await new_key(client, "acme"))["key"]
    caplog.clear()
    for wrong in (tenants_own, ADMIN[:-1], ADMIN + "x", ADMIN.upper(), "", "é"):
        answer = await client.request(method, PLACE + path, headers={b"authorization": f"Bearer {wrong}".encode()})
        check_error(answer, 401, "invalid_api_key", "administrator's key")
    del client.headers["authorization"]
    check_error(await client.request(method, PLACE + path), 401, "invalid_api_key", "Authorization: Bearer")
    check_error(await client.request(method, PLACE + path, headers={"x-api-key": ADMIN}), 401, "invalid_api_key")
    assert "is not the administrator" in caplog.text
    assert not [secret for secret in (tenants_own, ADMIN) if secret in caplog.text]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_the_administrator_is_no_tenant(client: httpx.AsyncClient) -> None:
    check_error(await client.post("/v1/chat/completions", json=QUESTION), 401, "invalid_api_key")
    check_error(await client.get("/v1/kinetics/usage"), 401, "invalid_api_key")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_without_a_key_for_it_there_is_no_administration(ledger: Ledger, vllm: FakeVllm, tmp_path: Path) -> None:
    for kept, key in ((ledger, None), (None, ADMIN)):
        async with serving(app_on(kept, vllm, tmp_path / "outbox", key)) as client:
            for method, path in [*((method, PLACE + path) for method, path in ROUTES), ("GET", "/admin")]:
                answer = await client.request(method, path, headers=bearer(ADMIN))
                check_error(answer, 404, "not_found", "KINETICS_ADMIN_API_KEY", "--ledger")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_every_change_is_logged_with_who_and_what_and_without_a_key(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await set_tenant(client, "acme", month_eflops="4e15")
        key = await new_key(client, "acme", "production")
        await client.delete(f"{PLACE}/keys/{key['id']}")
        await client.post(f"{PLACE}/keys", json={"tenant": "nobody"})
    lines = [record for record in caplog.records if record.getMessage().startswith("the administrator at 127.0.0.1")]
    # What the log's `extra` adds, records' type does not know.
    assert [record.fields for record in lines] == [  # type: ignore[attr-defined]
        {"administrator": "127.0.0.1", "action": action, "tenant": "acme"} | what
        for action, what in (
            ("set_tenant", {"month_eflops": 4 * 10**15}),
            ("create_key", {"id": key["id"], "name": "production"}),
            ("revoke_key", {"id": key["id"], "name": "production"}),
        )
    ]
    assert "month_eflops" in lines[0].getMessage()
    assert key["key"] not in caplog.text
    assert ADMIN not in caplog.text


async def test_two_who_make_the_same_tenant_at_once_both_succeed(client: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await asyncio.gather(*(set_tenant(client, name, concurrency=number) for number in (1, 2, 3)))
    assert set(await accounts(client)) == {"a", "b", "c"}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_the_answers_are_as_the_document_says(client: httpx.AsyncClient, ledger: Ledger) -> None:
    document = (await client.get("/openapi.json")).json()
    made = await set_tenant(client, "acme", models=["a"])
    key = await new_key(client, "acme")
    await settle(ledger, f"{1:032x}", await ledger.tenant("acme"), 5)
    listed = (await client.get(f"{PLACE}/tenants")).json()
    spent = (await client.get(f"{PLACE}/usage")).json()
    revoked = (await client.delete(f"{PLACE}/keys/{key['id']}")).json()
    for name, answer in (
        ("TenantAnswer", made),
        ("NewApiKey", key),
        ("AccountsAnswer", listed),
        ("SpendingAnswer", spent),
        ("ApiKey", revoked),
    ):
        assert undescribed(document, name, answer) == []


OPERATIONS = [
    operation for operation in operations(create_app(["http://127.0.0.1:9"], PAPER_B200)) if PLACE in operation.path
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
async def test_no_request_makes_it_fail(client: httpx.AsyncClient, operation: Any) -> None:
    """With the administrator's key, so that it reaches the database."""
    cases: list[Any] = []

    @given(case=operation.as_strategy())
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def collect(case: Any) -> None:
        cases.append(case.as_transport_kwargs(base_url="http://kinetics"))

    collect()
    for case in cases:
        headers = dict(case.get("headers") or {}) | bearer(ADMIN)
        wanted = {name: case[name] for name in ("params", "json") if case.get(name) is not None}
        answer = await client.request(case["method"], case["url"], headers=headers, **wanted)
        assert answer.status_code < 500, answer.text
