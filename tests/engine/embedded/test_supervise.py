"""The supervisor with a stand-in for vLLM: a small program in the place of the engine's Python."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from kinetics_serve.engine.embedded import supervise as module
from kinetics_serve.engine.embedded.diagnose import EngineError
from kinetics_serve.engine.embedded.phases import Progress
from kinetics_serve.engine.embedded.supervise import Supervisor

# Takes vLLM's command line. What to do beyond that comes as Python in --run, before it serves.
STAND_IN = f"""#!{sys.executable}
import http.server, os, pathlib, subprocess, sys, time
option = dict(zip(sys.argv[3::1], sys.argv[4::1]))
port, folder = int(option["--port"]), pathlib.Path(option["--model"])
with (folder / "runs").open("a") as runs:
    print(os.getpid(), file=runs)
run = len((folder / "runs").read_text().split())
print("(APIServer pid=1) INFO 11-23 22:36:40 [api_utils.py:286] non-default args", flush=True)
exec(option.get("--run", ""))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

Make = Callable[..., Supervisor]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
async def make(tmp_path: Path, model: Path) -> AsyncIterator[Make]:
    """Makes supervisors of the stand-in, and stops them at the end of the test."""
    program = tmp_path / "engine"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    made: list[Supervisor] = []

    def make(run: str = "", **options: object) -> Supervisor:
        arguments = {"served_name": "small", "python": str(program), "engine_args": ("--run", run), **options}
        made.append(Supervisor(str(model), **arguments))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        await each.stop()


@pytest.fixture
async def watching() -> AsyncIterator[Callable[[Supervisor], "asyncio.Task[None]"]]:
    tasks: list[asyncio.Task[None]] = []

    def watch(supervisor: Supervisor) -> "asyncio.Task[None]":
        tasks.append(asyncio.create_task(supervisor.watch()))
        return tasks[-1]

    yield watch
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def runs(model: Path) -> list[int]:
    """The process ids of all runs of the stand-in, first to last."""
    return [int(pid) for pid in (model / "runs").read_text().split()]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return condition()


async def failure(start: Awaitable[None]) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await start
    return caught.value


# ----- starting and stopping -----


async def test_started_means_that_it_answers(make: Make, model: Path) -> None:
    engine = make("time.sleep(0.5)")
    assert engine.pid is None
    await engine.start()
    assert engine.ready
    assert [engine.pid] == runs(model)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{engine.url}/health")).status_code == 200


async def test_stop_leaves_no_process_and_may_be_repeated(make: Make, model: Path) -> None:
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    note = "open(folder / 'runs', 'a').write(f'{child.pid}\\n')"
    engine = make(f"child = subprocess.Popen({sleeper}, start_new_session=True); {note}")
    await engine.start()
    assert len(runs(model)) == 2
    assert all(map(lives, runs(model)))
    await engine.stop()
    assert not engine.ready
    assert engine.pid is None
    assert not any(map(lives, runs(model)))
    await engine.stop()


async def test_a_stopped_engine_can_be_started_again(make: Make, model: Path) -> None:
    engine = make()
    await engine.start()
    await engine.stop()
    await engine.start()
    assert engine.ready
    assert len(runs(model)) == 2


async def test_stop_during_the_start_ends_both(make: Make, model: Path) -> None:
    engine = make("time.sleep(600)")
    start = asyncio.create_task(engine.start())
    assert await until((model / "runs").exists)
    await engine.stop()
    assert "stopped" in str(await failure(start))
    assert not lives(runs(model)[0])


async def test_a_cancelled_start_leaves_no_process(make: Make, model: Path) -> None:
    start = asyncio.create_task(make("time.sleep(600)").start())
    assert await until((model / "runs").exists)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not lives(runs(model)[0])


async def test_a_start_that_takes_too_long_is_ended_and_names_its_phase(make: Make, model: Path) -> None:
    engine = make("print('INFO Starting to load model x...', flush=True); time.sleep(600)", start_timeout_s=1.5)
    error = await failure(engine.start())
    assert "not ready after 2 s" in str(error)
    assert "loading the model" in str(error)
    assert "--start-timeout" in str(error)
    assert not lives(runs(model)[0])


async def test_the_phases_of_the_start_are_reported_once_each_in_order(make: Make) -> None:
    logged = [
        "(Worker pid=9) INFO 11-23 22:37:07 [cpu_model_runner.py:68] Starting to load model /tmp/out...",
        "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:01<00:00,  1.16s/it]",
        "(EngineCore pid=7) INFO 11-23 22:37:10 [kv_cache_utils.py:2327] CPU KV cache size: 93,184 tokens",
    ]
    reported: list[Progress] = []
    await make(f"print(*{logged!r}, sep='\\n', flush=True)", on_progress=reported.append).start()
    phases = list(dict.fromkeys(progress.phase for progress in reported))
    assert phases == ["importing vLLM", "reading the model's configuration", "loading the model", "warming up", "ready"]
    assert [each.phase for each in reported] == sorted((each.phase for each in reported), key=phases.index)
    assert all(0 <= before.seconds <= after.seconds for before, after in pairwise(reported))


async def test_its_output_goes_to_the_log_line_by_line(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="kinetics_serve.engine"):
        await make("print('one\\rtwo'); print('x' * 300_000, file=sys.stderr, flush=True)").start()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert {"one", "two", "x" * 300_000} <= set(lines)


# ----- failing -----


async def test_an_engine_that_ends_early_says_why(make: Make) -> None:
    error = await failure(make("print('before'); raise ValueError('no such dtype: int3')").start())
    assert "ValueError: no such dtype: int3" in str(error)
    assert "exit status 1" in str(error)
    assert "before" in error.log_tail


async def test_the_log_tail_is_bounded_and_ends_with_the_last_line(make: Make) -> None:
    error = await failure(make("print(*range(1000), sep='\\n'); sys.exit(3)").start())
    assert error.log_tail == [str(number) for number in range(950, 1000)]


async def test_a_python_that_does_not_exist_is_named(make: Make) -> None:
    error = await failure(make(python="/no/such/python").start())
    assert "/no/such/python" in str(error)


async def test_a_python_without_vllm_is_told_what_to_install(make: Make, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')  # no site-packages
    bare.chmod(0o755)
    error = await failure(make(python=str(bare)).start())
    assert "vLLM is not installed" in str(error)
    assert "kinetics-serve[cpu]" in str(error)


async def test_the_first_start_takes_another_port_when_its_own_is_taken(make: Make) -> None:
    engine = make()
    before = engine.url
    with socket.create_server(("127.0.0.1", engine.port)):
        await engine.start()
        assert engine.url != before
        assert engine.ready


async def test_a_port_lost_between_choice_and_use_is_replaced_too(make: Make, model: Path) -> None:
    engine = make("run == 1 and sys.exit('OSError: [Errno 98] Address already in use')")
    before = engine.url
    await engine.start()
    assert engine.url != before
    assert len(runs(model)) == 2


# ----- watching -----


async def test_a_killed_engine_comes_back_under_the_same_url(
    make: Make, model: Path, watching: Callable[[Supervisor], "asyncio.Task[None]"]
) -> None:
    engine = make()
    await engine.start()
    url = engine.url
    watching(engine)
    os.kill(runs(model)[0], signal.SIGKILL)
    assert await until(lambda: not engine.ready)
    assert await until(lambda: engine.ready)
    assert engine.url == url
    assert engine.pid == runs(model)[1]


async def test_a_killed_guardian_is_noticed_as_well(
    make: Make, model: Path, watching: Callable[[Supervisor], "asyncio.Task[None]"]
) -> None:
    engine = make()
    await engine.start()
    watching(engine)
    os.kill(parent(runs(model)[0]), signal.SIGKILL)
    assert await until(lambda: len(runs(model)) == 2 and engine.ready)
    assert not lives(runs(model)[0])


async def test_the_delay_doubles_while_it_does_not_come_back(
    make: Make,
    model: Path,
    watching: Callable[[Supervisor], "asyncio.Task[None]"],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "FIRST_RESTART_DELAY_S", 0.1)
    monkeypatch.setattr(module, "LONGEST_RESTART_DELAY_S", 0.4)
    engine = make("1 < run < 6 and sys.exit('RuntimeError: still broken')")
    await engine.start()
    watching(engine)
    os.kill(runs(model)[0], signal.SIGKILL)
    assert await until(lambda: len(runs(model)) == 6 and engine.ready, timeout_s=30)
    assert re.findall(r"Restarting the engine in (\S+) s", caplog.text) == ["0.1", "0.2", "0.4", "0.4", "0.4"]
    assert "RuntimeError: still broken" in caplog.text


async def test_the_delay_starts_over_after_a_healthy_while(
    make: Make,
    model: Path,
    watching: Callable[[Supervisor], "asyncio.Task[None]"],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "FIRST_RESTART_DELAY_S", 0.1)
    monkeypatch.setattr(module, "HEALTHY_AFTER_S", 0.0)
    engine = make()
    await engine.start()
    watching(engine)
    for _ in range(3):
        os.kill(runs(model)[-1], signal.SIGKILL)
        assert await until(lambda: not engine.ready)
        assert await until(lambda: engine.ready)
    assert caplog.text.count("Restarting the engine in 0.1 s") == 3


async def test_watching_ends_when_the_engine_is_stopped(
    make: Make, model: Path, watching: Callable[[Supervisor], "asyncio.Task[None]"]
) -> None:
    engine = make()
    await engine.start()
    watch = watching(engine)
    await engine.stop()
    await asyncio.wait_for(watch, 5)
    assert len(runs(model)) == 1


async def test_stopping_while_it_waits_to_restart_starts_nothing(
    make: Make, model: Path, watching: Callable[[Supervisor], "asyncio.Task[None]"]
) -> None:
    engine = make()
    await engine.start()
    watch = watching(engine)
    os.kill(runs(model)[0], signal.SIGKILL)
    assert await until(lambda: not engine.ready)
    await engine.stop()
    await asyncio.wait_for(watch, 5)
    assert len(runs(model)) == 1


async def test_stopping_while_it_comes_back_leaves_no_process(
    make: Make, model: Path, watching: Callable[[Supervisor], "asyncio.Task[None]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RESTART_DELAY_S", 0.0)
    engine = make("run > 1 and time.sleep(600)")
    await engine.start()
    watch = watching(engine)
    os.kill(runs(model)[0], signal.SIGKILL)
    assert await until(lambda: len(runs(model)) == 2)
    await engine.stop()
    assert not any(map(lives, runs(model)))
    await asyncio.wait_for(watch, 5)
    assert len(runs(model)) == 2
