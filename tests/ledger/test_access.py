"""Who gets in over HTTP, and what they may use."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fake_vllm import MODEL, OTHER_MODEL, FakeVllm
from tests.ledger.server import QUESTION, VOTE, FrontEnd, bearer, check_error, front_end, run_command


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}", "/v1/kinetics/usage", "/v1/kinetics/frontier"])
@pytest.mark.parametrize("key", [None, "sk-kinetics-wrong"])
def test_reading_needs_a_key(server: FrontEnd, path: str, key: str | None) -> None:
    response = httpx.get(server.url + path, headers=bearer(key))
    check_error(response, 401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/kinetics/plan"])
@pytest.mark.parametrize("key", [None, "sk-kinetics-wrong"])
def test_asking_needs_a_key_and_reaches_no_engine_without(server: FrontEnd, path: str, key: str | None) -> None:
    check_error(server.ask(key, QUESTION, path), 401, "invalid_api_key")
    assert server.fake.requests == []


def test_a_key_may_come_as_anthropics_clients_send_it(server: FrontEnd) -> None:
    message = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}

    def ask(**headers: str) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/messages", json=message, headers=headers)

    key = server.key("anthropic")
    assert ask(**{"x-api-key": key}).status_code == 200
    assert server.spent(key).keys() == {"pass_through"}
    check_error(ask(**{"x-api-key": "sk-ant-wrong"}), 401, "invalid_api_key")
    check_error(ask(**{"x-api-key": key} | bearer("sk-kinetics-wrong")), 401, "invalid_api_key")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_probes_need_no_key(server: FrontEnd, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 200


def test_a_revoked_key_is_refused_from_the_next_request_on(server: FrontEnd) -> None:
    key = server.key("revoked")
    assert server.ask(key, QUESTION).status_code == 200
    listed = run_command("keys", "list", "--ledger", server.ledger).splitlines()
    (line,) = [line for line in listed if line.split()[1:2] == ["revoked"]]
    run_command("keys", "revoke", line.split()[0], "--ledger", server.ledger)
    check_error(server.ask(key, QUESTION), 401, "invalid_api_key", "revoked")


def test_without_a_ledger_everything_is_open(fake: FakeVllm, folder: Path) -> None:
    with front_end(fake, None, folder, folder / "open.log") as server:
        assert server.ask(None, QUESTION).status_code == 200
        assert fake.sent("/v1/chat/completions")[0] == {"path": "/v1/chat/completions", **QUESTION}
        check_error(httpx.get(f"{server.url}/v1/kinetics/usage"), 404, "not_found", "--ledger")


def test_a_tenant_sees_and_uses_its_own_models_only(server: FrontEnd) -> None:
    key = server.key("models", models=[OTHER_MODEL])
    listed = httpx.get(f"{server.url}/v1/models", headers=bearer(key)).json()["data"]
    assert [model["id"] for model in listed] == [OTHER_MODEL]
    assert httpx.get(f"{server.url}/v1/models/{MODEL}", headers=bearer(key)).status_code == 404
    for path in ("/v1/chat/completions", "/v1/kinetics/plan"):
        for body in (QUESTION, {key: value for key, value in QUESTION.items() if key != "model"}):
            check_error(server.ask(key, body, path), 404, "model_not_found", OTHER_MODEL)
    assert server.ask(key, QUESTION | {"model": OTHER_MODEL}).status_code == 200


def test_each_tenant_has_its_own_part_of_the_prefix_cache(server: FrontEnd) -> None:
    one, other = server.key("salt-1"), server.key("salt-2")
    for body in (QUESTION, QUESTION | {"kinetics": VOTE}, QUESTION | {"cache_salt": "user-7"}):
        salts = []
        for key in (one, one, other):
            server.fake.requests.clear()
            assert server.ask(key, body).status_code == 200
            sent = server.fake.sent("/v1/chat/completions")
            salts.append({request["cache_salt"] for request in sent})
            assert all("cache_salt" not in request for request in server.fake.sent("/tokenize"))
        assert len(salts[0]) == 1
        assert salts[0] == salts[1] != salts[2]
        assert all(len(salt) <= 128 and not set(salt) & set("@/\\\0") for salt in salts[0] | salts[2])
        assert not (salts[0] | salts[2]) & {"user-7"}


def test_no_key_is_in_the_log_or_in_the_database(server: FrontEnd) -> None:
    key = server.key("secretive")
    server.ask(key, QUESTION | {"kinetics": VOTE})
    server.ask(key + "x", QUESTION)
    assert len(server.log.read_text()) > 1000
    for file in (server.log, *server.folder.glob("ledger.db*")):
        assert key.removeprefix("sk-kinetics-").encode() not in file.read_bytes()


def test_a_tenant_cannot_overtake_others_inside_the_engine(server: FrontEnd) -> None:
    assert server.ask(server.key("hasty"), QUESTION | {"priority": -1000}).status_code == 200
    assert "priority" not in server.fake.requests[-1]


@pytest.mark.parametrize(
    "more", [{"chat_template_kwargs": 5, "documents": [1]}, {"messages": [{"role": "user", "content": 5}]}]
)
def test_wrong_types_are_the_clients_fault(server: FrontEnd, more: dict[str, Any]) -> None:
    check_error(server.ask(server.key("wrong"), QUESTION | {"kinetics": VOTE} | more), 400, "invalid_request")


def test_a_header_that_cannot_be_sent_on_is_left_out(server: FrontEnd) -> None:
    headers = [(b"accept", "é".encode("latin-1")), (b"authorization", f"Bearer {server.key('accent')}".encode())]
    response = httpx.post(f"{server.url}/v1/chat/completions", json=QUESTION, headers=headers)
    assert response.status_code == 200, response.text
