"""The load test: what its clients read, what the report makes of it, and both against what a server counts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from deploy.loadtest import counted, records
from deploy.loadtest.bills import Answer, agreement, read_stream, read_whole
from deploy.loadtest.mix import LEFT_STRATEGY, MIX
from deploy.loadtest.records import ANSWERED, FAILED, LEFT, REFUSED, Record
from deploy.loadtest.report import LoadTest, html, show
from deploy.loadtest.sums import over_time, percentiles, sums
from tests.e2e.conftest import free_port
from tests.fake_vllm import running_fake_vllm
from tests.ledger.server import FrontEnd, front_end
from tests.test_architecture import ROOT

# Not importorskip: importing Locust changes Python's sockets and threads.
needs_locust = pytest.mark.skipif(find_spec("locust") is None, reason="no Locust here: pip install -e '.[loadtest]'")

BILL = {"stop_reason": "consensus", "strategy": "majority_vote", "budget_eflops": 10, "spent_eflops": 4}


def event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode()


def text(content: str, **more: Any) -> bytes:
    return event(choices=[{"delta": {"content": content}}], **more)


def streamed(*lines: bytes) -> Answer:
    """What is read of a stream whose n-th line comes after n seconds."""
    now = 0

    def arriving() -> Iterator[bytes]:
        nonlocal now
        for line in lines:
            now += 1
            yield line

    return read_stream(arriving(), lambda: now)


def test_the_first_text_is_neither_progress_nor_a_comment_nor_a_role() -> None:
    progress = event(choices=[], kinetics={"spent_eflops": 3, "votes": []})
    role = event(choices=[{"delta": {"role": "assistant", "content": ""}}])
    answer = streamed(progress, b": keep-alive", b"", role, text("5"), text("6", kinetics=BILL), b"data: [DONE]")
    assert answer == Answer(text_s=5, bill=BILL, code=None)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([text("5")], "broken_off"),
        ([event(error={"code": "overloaded"}), b"data: [DONE]"], "overloaded"),
        ([text("5"), event(error={"code": "engine_unavailable"}), b"data: [DONE]"], "engine_unavailable"),
        ([event(error="nonsense"), b"data: [DONE]"], "unknown"),
    ],
)
def test_a_stream_that_does_not_end_well_is_no_answer(lines: list[bytes], code: str) -> None:
    assert streamed(*lines).code == code


def test_a_whole_answer_has_its_text_when_it_is_there() -> None:
    said: dict[str, Any] = {"choices": [{"message": {"content": "56"}}], "kinetics": BILL}
    assert read_whole(said, lambda: 2.0) == Answer(2.0, BILL)
    assert read_whole({"error": {"code": "quota_exceeded"}}, lambda: 2.0) == Answer(code="quota_exceeded")


def test_agreement_is_the_share_of_votes_for_the_answer() -> None:
    votes = [{"answer": "56", "count": 3}, {"answer": "54", "count": 1}]
    assert agreement({"answer": "56", "votes": votes}) == 0.75
    assert agreement({"answer": None, "votes": []}) is None


def asked(outcome: str, began: float = 0, seconds: float = 1, **more: Any) -> Record:
    return Record("a kind", 0, began, seconds, outcome=outcome, **more)


BILLED = {"budget_eflops": 10, "spent_eflops": 4, "spent_dollars": 0.5, "agreement": 0.5}
SOME = [
    asked(ANSWERED, 0, 1, text_s=0.5, **BILLED),
    asked(ANSWERED, 0, 4, text_s=2.0, **BILLED | {"spent_eflops": 8, "agreement": 1.0}),
    asked(ANSWERED, 3, 1, text_s=0.1),
    asked(REFUSED, 2, 0.1),
    asked(FAILED, 2, 0.1),
    asked(LEFT, 2, 0.1),
]


def test_sums_are_of_bills_and_latencies_of_answers() -> None:
    of = sums(SOME)
    assert (of.asked, of.answered, of.refused, of.failed, of.left, of.billed) == (6, 3, 1, 1, 1, 2)
    assert (of.eflops, of.dollars, of.budget_use, of.agreement) == (12, 1.0, 0.6, 0.75)
    assert (of.eflops_an_answer, of.dollars_an_answer) == (6, 0.5)
    assert (of.seconds, of.text_s) == ((1, 4, 4), (0.5, 2.0, 2.0))
    nothing = sums([])
    assert (nothing.answered, nothing.eflops, nothing.dollars, nothing.budget_use, nothing.text_s) == (
        0,
        0,
        *[None] * 3,
    )


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentiles(float(number) for number in range(1, 101)) == (50, 95, 99)
    assert percentiles([None, 3.0]) == (3, 3, 3)


def test_a_request_counts_where_it_ended() -> None:
    first, second = over_time(SOME, 2)
    assert (first.answers, second.answers) == (0.5, 1.0)
    assert (first.eflops, second.eflops) == (2, 4)
    assert (first.middle_s, second.middle_s) == (1, 3)
    assert (first.budget_use, second.budget_use) == (0.4, 0.8)


def test_the_page_shows_the_tables_and_five_plots_and_fetches_nothing() -> None:
    test = LoadTest("http://127.0.0.1:1", "<model>", 4, SOME, counted.Counted(3, 1, 12.0, 0.0))
    page = html(test)
    assert page.count("<svg") == 5
    assert "&lt;model&gt;" in page
    assert "<model>" not in page
    assert "currentColor" in page
    assert not [word for word in ("src=", "<link", "<script", "@import", "url(http") if word in page]
    assert "a kind" in page


def test_a_test_without_any_answer_has_a_report_too() -> None:
    console = Console(record=True, width=200)
    show(LoadTest("http://127.0.0.1:1", "m", 4, [], None), console)
    assert "answers" in console.export_text()
    assert "<svg" not in html(LoadTest("http://127.0.0.1:1", "m", 4, [], None))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FrontEnd]:
    """A front-end that runs one vote at a time, and lets one request wait."""
    with running_fake_vllm(tmp_path) as fake:
        fake.tokens, fake.token_s, fake.word = 12, 0.03, lambda seed: "7 "
        few = ("--max-inflight-samples", "4", "--max-queue", "1", "--price-per-gpu-hour", "2")
        with front_end(fake, f"sqlite:///{tmp_path}/ledger.db", tmp_path, tmp_path / "log", *few) as running:
            yield running


def loadtest(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOADTEST_")}
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.loadtest", *arguments],
        cwd=ROOT, env=environment | variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@needs_locust
def test_what_clients_add_up_is_what_the_server_counted_and_booked(server: FrontEnd, tmp_path: Path) -> None:
    keys = [server.key("acme"), server.key("umbrella")]
    out = tmp_path / "report"
    process = loadtest(
        *("--users", "12", "--seconds", "8", "--out", str(out)),
        LOADTEST_URL=server.url,
        LOADTEST_API_KEY=",".join(keys),
    )
    printed, problems = process.communicate(timeout=600)
    assert process.returncode == 0, problems + (out / "locust.log").read_text()

    report = json.loads((out / "report.json").read_text())
    found, all_of_them = records.read(out / "records.jsonl"), report["all"]
    assert {record.kind for record in found} <= {kind.name for kind in MIX}
    assert all_of_them["asked"] == len(found) == sum(each["asked"] for each in report["kinds"].values())
    assert all_of_them["answered"] > 0
    assert all_of_them["refused"] > 0
    assert all_of_them["failed"] == 0
    assert all_of_them["agreement"] == 1.0  # all samples say the same
    assert 0 < all_of_them["budget_use"] <= 1

    said = report["server"]
    for ours, theirs in (("answered", "completed"), ("refused", "refused")):  # who leaves may miss what comes just then
        assert all_of_them[ours] <= said[theirs] <= all_of_them[ours] + all_of_them["left"]
    stayed = sums(record for record in found if record.strategy != LEFT_STRATEGY)
    assert said["eflops"] == pytest.approx(stayed.eflops, rel=1e-6)  # bills are whole eFLOPs
    assert said["left_eflops"] >= (all_of_them["eflops"] - stayed.eflops) * (1 - 1e-6)
    for tenant, key in enumerate(keys):
        bills: dict[str, int] = {}
        for record in found:
            if record.tenant == tenant and record.strategy not in (None, LEFT_STRATEGY):
                bills[record.strategy] = bills.get(record.strategy, 0) + (record.spent_eflops or 0)
        booked = {name: eflops for name, eflops in server.spent(key).items() if name in bills}
        assert booked == bills
    assert "tenant 2" in printed
    assert f"{out}/report.html" in printed


def test_a_server_that_cannot_be_tested_is_named_with_why(server: FrontEnd, tmp_path: Path) -> None:
    for url, why in ((server.url, "LOADTEST_API_KEY"), (f"http://127.0.0.1:{free_port()}", "can't be reached")):
        process = loadtest("--url", url, "--seconds", "1", "--out", str(tmp_path))
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 2
        assert why in problems
        assert "Traceback" not in problems


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@needs_locust
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_load_test_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """Its own server here is a front-end of the stand-in."""
    with running_fake_vllm(tmp_path) as fake:
        fake.token_s = 0.05
        process = loadtest(
            *("--seconds", "300", "--out", str(tmp_path), "--", "--upstream", fake.url, "--hardware", "paper-b200")
        )
        until(lambda: (tmp_path / "records.jsonl").exists(), 180)
        started = children(process.pid)
        names = " ".join(" ".join(each.cmdline()) for each in started)
        assert "kinetics_serve serve" in names
        assert "locust" in names
        process.send_signal(number)
        process.communicate(timeout=120)
        _, left = psutil.wait_procs(started, timeout=60)
        assert not left


def until(condition: Any, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
