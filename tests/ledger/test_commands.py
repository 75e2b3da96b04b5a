"""The administrator's commands."""

from pathlib import Path

import pytest

from tests.ledger.server import run_command


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


def test_a_key_is_shown_once_and_listed_without_it(ledger: str) -> None:
    run_command("tenants", "set", "acme", "--ledger", ledger)
    key = run_command("keys", "create", "acme", "--name", "ci", "--ledger", ledger).strip()
    assert key.startswith("sk-kinetics-")
    listed = run_command("keys", "list", "--ledger", ledger)
    assert "acme" in listed
    assert "ci" in listed
    assert key not in listed
    run_command("keys", "revoke", "1", "--ledger", ledger)
    assert "no key that is in use has the id 1" in run_command(
        "keys", "revoke", "1", "--ledger", ledger, succeeds=False
    )


def test_limits_that_are_not_named_stay(ledger: str) -> None:
    first = ["--window-eflops", "4e30", "--window", "90m", "--concurrency", "3", "--model", "a", "--model", "b"]
    run_command("tenants", "set", "acme", *first, "--ledger", ledger)
    run_command("tenants", "set", "acme", "--month-eflops", "1e31", "--window-eflops", "none", "--ledger", ledger)
    assert run_command("tenants", "list", "--ledger", ledger) == (
        f"acme: window_eflops=none window=5400s month_eflops={10**31} request_eflops=none concurrency=3 models=a,b\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tenants", "set", "acme", "--window-eflops", "much"], "expected whole eFLOPs"),
        (["tenants", "set", "acme", "--window", "3w"], "a window is such as"),
        (["tenants", "set", "acme", "--window", "none"], "a window has a length"),
        (["tenants", "set", "acme", "--concurrency", "0"], "a concurrency is"),
        (["tenants", "set", ""], "a tenant's name"),
        (["keys", "create", "nobody"], "tenants set nobody"),
        (["keys", "revoke", "7"], "keys list"),
        (["usage", "--tenant", "nobody"], "no tenant 'nobody'"),
    ],
)
def test_a_mistake_is_explained(ledger: str, arguments: list[str], words: str) -> None:
    run_command("tenants", "set", "other", "--ledger", ledger)
    message = run_command(*arguments, "--ledger", ledger, succeeds=False)
    assert words in message
    assert "Traceback" not in message


@pytest.mark.parametrize("words", ["usage", "keys list", "keys create acme", "tenants list", "ledger check"])
def test_a_command_that_reads_makes_no_ledger(ledger: str, words: str) -> None:
    assert "there is none" in run_command(*words.split(), "--ledger", ledger, succeeds=False)
    assert not Path(ledger).exists()
    Path(ledger).touch()
    assert "there is none" in run_command(*words.split(), "--ledger", ledger, succeeds=False)
    assert b"tenants" not in Path(ledger).read_bytes()


@pytest.mark.parametrize(
    "url", ["mysql://host/name", "/nowhere/ledger.db", "postgresql://someone:secret@127.0.0.1:1/x"]
)
def test_a_ledger_that_can_not_be_opened_is_explained(url: str) -> None:
    for command in (["keys", "list"], ["serve", "--upstream", "http://127.0.0.1:1", "--hardware", "b200"]):
        message = run_command(*command, "--ledger", url, succeeds=False)
        assert "ledger" in message
        assert "secret" not in message
