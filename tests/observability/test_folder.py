"""The numbers of several workers, of which some have ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kinetics_serve.observability.folder import fold
from kinetics_serve.observability.metrics import METRICS_FOLDER, Metrics

COUNTS = """
from kinetics_serve.observability.metrics import Metrics
metrics = Metrics()
metrics.refused.inc(3)
metrics.queue_wait.observe(0.2)
metrics.waiting.set(5)
import os
print(os.getpid())
"""


GAUGES = {
    "kinetics_queue_requests",
    "kinetics_load_ratio",
    "kinetics_outbox_bills",
    "kinetics_outbox_oldest_seconds",
    "kinetics_outbox_rejected_bills",
}


def worker(folder: Path) -> int:
    """One that has counted and ended; its process id."""
    environment = os.environ | {METRICS_FOLDER: str(folder)}
    run = subprocess.run([sys.executable, "-c", COUNTS], env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout)


def shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.setenv(METRICS_FOLDER, str(folder))
    lines = Metrics().exposition().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_what_an_ended_worker_counted_stays_and_its_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for ended in range(1, 4):
        pid = worker(tmp_path)
        before = shown(tmp_path, monkeypatch)
        fold(pid, str(tmp_path))
        after = shown(tmp_path, monkeypatch)
        assert after["kinetics_refused_requests_total"] == 3 * ended
        assert after["kinetics_queue_wait_seconds_count"] == ended
        # What is so at the moment goes with the worker; what was counted stays.
        counted = {name: value for name, value in before.items() if name not in GAUGES}
        assert after == counted
        assert not list(tmp_path.glob(f"*_{pid}.db"))
        sizes.append(sorted(file.name for file in tmp_path.iterdir()))
    assert sizes[0] == sizes[-1]


def test_there_are_no_created_series() -> None:
    metrics = Metrics()
    metrics.refused.inc()
    metrics.queue_wait.observe(0.1)
    assert b"_created" not in metrics.exposition()


QUOTA = """
import sys, time
from kinetics_serve.observability.metrics import Metrics
Metrics().tenant_quota.labels("acme", "month").set(float(sys.argv[1]))
print("set", flush=True)
time.sleep(60)
"""


def test_of_a_quota_several_workers_show_what_the_last_request_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {METRICS_FOLDER: str(tmp_path)}
    workers = []
    try:
        for used in ("0.95", "0.10"):
            command = [sys.executable, "-c", QUOTA, used]
            workers.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
            assert workers[-1].stdout is not None
            assert workers[-1].stdout.readline() == b"set\n"
        assert shown(tmp_path, monkeypatch)['kinetics_tenant_quota_used_ratio{quota="month",tenant="acme"}'] == 0.1
    finally:
        for each in workers:
            each.kill()
            each.communicate()
