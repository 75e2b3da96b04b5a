"""The front-end as a gateway: against no proxy at all, and against its_hub's gateway, on the same stand-in for vLLM.

    python -m benchmarks.gateway [--seconds S] [--requests N] [--memory-requests N] [--out FILE]

Upstream, proxy and clients share the machine, each in a process of its own. Pass-through: 64 streams at a time; an
event's latency is from the upstream's write to the client's read. Budgeted: every request takes 8 samples, on both
sides; its_hub by its self-consistency of 8.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

STREAMS = 64
TOKENS = 32
TOKEN_MS = 20.0
SAMPLES = 8
BUDGETED_CLIENTS = 32
MODEL = "fake"
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "What is 7 times 8?"}]}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
_SENT = re.compile(rb'"sent": (\d+)')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, port: int, ready: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that runs meanwhile, from when the path `ready` answers 200."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    if httpx.get(f"http://127.0.0.1:{port}{ready}", trust_env=False).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                if running.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start:\n{log.read().decode()[-3000:]}")
                time.sleep(0.1)
            yield running
        finally:
            running.terminate()
            running.wait(30)


@contextmanager
def upstream(folder: str, tokens: int, token_ms: float) -> Iterator[int]:
    port = free_port()
    with process("benchmarks.fake_upstream", str(port), folder, str(tokens), str(token_ms), port=port, ready="/health"):
        yield port


@contextmanager
def front_end(upstream: int) -> Iterator[tuple[int, int]]:
    """Its port and process id."""
    port = free_port()
    options = ["--upstream", f"http://127.0.0.1:{upstream}", "--hardware", "b200", "--log-level", "warning"]
    with process("kinetics_serve", "serve", "--port", str(port), *options, port=port, ready="/ready") as running:
        yield port, running.pid


@contextmanager
def its_hub(upstream: int) -> Iterator[tuple[int, int]]:
    """Its port and process id."""
    port = free_port()
    module = "its_hub.integration.iaas.app_server"
    with process(module, "--port", str(port), "--log-level", "ERROR", port=port, ready="/v1/models") as running:
        settings = {"endpoint": f"http://127.0.0.1:{upstream}/v1", "api_key": "none", "model": MODEL, "budget": SAMPLES}
        settings |= {"alg": "self-consistency", "regex_patterns": [r"(\d+)$"]}
        httpx.post(f"http://127.0.0.1:{port}/configure", json=settings, trust_env=False).raise_for_status()
        yield port, running.pid


class Client:
    """One connection, used again and again; it reads no more of an answer than it must."""

    def __init__(self, port: int, body: dict[str, Any]) -> None:
        self._port = port
        content = json.dumps(body).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        self._request = head + b"content-length: %d\r\n\r\n" % len(content) + content
        self._reader: asyncio.StreamReader | None = None

    async def ask(self, on_piece: Callable[[bytes], None] | None = None) -> None:
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        self._writer.write(self._request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{head!r} {await self._reader.read(2000)!r}")
        length = re.search(rb"content-length: (\d+)", head)
        if length:
            await self._reader.readexactly(int(length[1]))
            return
        end = b""
        while not end.endswith(b"0\r\n\r\n"):
            piece = await self._reader.read(1 << 16)
            if not piece:
                raise RuntimeError("the stream broke off")
            if on_piece is not None:
                on_piece(piece)
            end = (end + piece)[-5:]

    def close(self) -> None:
        if self._reader is not None:
            self._writer.close()


async def repeat(
    clients: int,
    ask: Callable[[Client], Awaitable[None]],
    make: Callable[[], Client],
    until: Callable[[], bool],
    spread_s: float = 0.0,
) -> None:
    """So many clients at a time, each asking again and again until `until()`; they begin over spread_s seconds."""

    async def one(number: int) -> None:
        await asyncio.sleep(spread_s * number / clients)
        client = make()
        try:
            while not until():
                await ask(client)
        finally:
            client.close()

    await asyncio.gather(*(one(number) for number in range(clients)))


@dataclass
class Streams:
    """What STREAMS clients saw, all but `all_events` after warming up. Latencies in milliseconds."""

    seconds: float = 0.0
    events: int = 0
    all_events: int = 0
    event_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds

    def percentiles(self, which: list[float]) -> tuple[float, float]:
        cuts = statistics.quantiles(which, n=100)
        return cuts[49], cuts[98]


async def stream(port: int, seconds: float) -> Streams:
    """Streams through `port` for so long, after a moment of warming up."""
    seen = Streams()
    begun = time.monotonic()
    warm, end = begun + min(1.0, seconds / 4), begun + seconds

    async def ask(client: Client) -> None:
        asked, first = time.monotonic(), True

        def on_piece(piece: bytes) -> None:
            nonlocal first
            now, now_ns = time.monotonic(), time.monotonic_ns()
            sent = _SENT.findall(piece)
            seen.all_events += len(sent)
            if not warm < now < end:
                first = False
                return
            seen.events += len(sent)
            seen.event_ms += [(now_ns - int(each)) / 1e6 for each in sent]
            if first and sent:
                seen.first_ms.append((now - asked) * 1000)
                first = False

        await client.ask(on_piece)

    body = QUESTION | {"max_tokens": TOKENS, "stream": True}
    # In step, all streams would end and begin at the same moment, which no users do.
    spread_s = TOKENS * TOKEN_MS / 1000
    await repeat(STREAMS, ask, lambda: Client(port, body), lambda: time.monotonic() > end, spread_s)
    seen.seconds = end - warm
    return seen


async def requests_per_s(port: int, body: dict[str, Any], requests: int) -> float:
    """Of BUDGETED_CLIENTS clients, whole answers."""
    warmed_up = asyncio.Event()
    left = requests + BUDGETED_CLIENTS
    begun = 0.0

    async def ask(client: Client) -> None:
        nonlocal left, begun
        if left == requests and not warmed_up.is_set():
            warmed_up.set()
            begun = time.monotonic()
        left -= 1
        await client.ask()

    await repeat(BUDGETED_CLIENTS, ask, lambda: Client(port, body), lambda: left <= 0)
    return requests / (time.monotonic() - begun)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the process has used: what it costs on a machine that others use too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def budgeted(port: int, pid: int, body: dict[str, Any], requests: int) -> dict[str, float]:
    before = cpu_s(pid)
    rate = uvloop.run(requests_per_s(port, body, requests))
    return {"requests_per_s": rate, "cpu_ms_per_request": (cpu_s(pid) - before) * 1000 / (requests + BUDGETED_CLIENTS)}


def rss_mib(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def measure_pass_through(folder: str, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, token_ms in (("paced", TOKEN_MS), ("unpaced", 0.0)):
        with upstream(folder, TOKENS, token_ms) as direct, front_end(direct) as (proxied, pid):
            without = uvloop.run(stream(direct, seconds))
            before = cpu_s(pid)
            with_proxy = uvloop.run(stream(proxied, seconds))
            cpu = cpu_s(pid) - before
        row: dict[str, Any] = {"throughput_ratio": with_proxy.events_per_s / without.events_per_s}
        row["cpu_us_per_event"] = cpu * 1e6 / with_proxy.all_events
        for side, seen in (("direct", without), ("proxied", with_proxy)):
            event, first = seen.percentiles(seen.event_ms), seen.percentiles(seen.first_ms)
            row[side] = {"events_per_s": seen.events_per_s, "event_ms": event, "first_event_ms": first}
        for which in ("event_ms", "first_event_ms"):
            row[f"added_{which}"] = [a - b for a, b in zip(row["proxied"][which], row["direct"][which], strict=True)]
        found[name] = row
    return found


def measure_budgeted(folder: str, requests: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ask = QUESTION | {"max_tokens": TOKENS, "temperature": 0.7}
    ours = {"budget": {"samples": SAMPLES}, "max_samples": SAMPLES, "answer": {"extractor": "number"}}
    for name, token_ms in (("fast", 0.0), ("paced", TOKEN_MS)):
        with upstream(folder, TOKENS, token_ms) as port:
            with its_hub(port) as (theirs, pid):
                found[name] = {"its_hub": budgeted(theirs, pid, ask | {"budget": SAMPLES}, requests)}
            with front_end(port) as (front, pid):
                for strategy in ("best_of_n", "majority_vote"):
                    body = ask | {"kinetics": ours | {"strategy": strategy}}
                    found[name][strategy] = budgeted(front, pid, body, requests)
    return found


def measure_memory(folder: str, requests: int) -> dict[str, Any]:
    """A tenth of them with a budget of 2 samples, the others half streamed, half not."""
    plain: dict[str, Any] = QUESTION | {"max_tokens": 8}
    kinetics = {"budget": {"samples": 2}, "strategy": "best_of_n", "max_samples": 2}
    kinds: list[dict[str, Any]] = [plain | {"kinetics": kinetics}, *[plain, plain | {"stream": True}] * 5][:10]
    sizes: list[tuple[int, float]] = []
    with upstream(folder, 8, 0.0) as port, front_end(port) as (front, pid):
        for part in range(10):
            for body in kinds:
                uvloop.run(requests_per_s(front, body, requests // 10 // len(kinds)))
            sizes.append(((part + 1) * requests // 10, rss_mib(pid)))
    return {"requests_and_rss_mib": sizes, "growth_mib": sizes[-1][1] - sizes[0][1]}


def show(found: dict[str, Any]) -> None:
    console = Console(width=120)
    if "pass_through" in found:
        table = Table(
            "pass-through, 64 streams", "events/s direct", "proxied", "ratio", "added p50 ms", "p99 ms", "CPU µs/event"
        )
        for name, row in found["pass_through"].items():
            rates = [f"{row[side]['events_per_s']:.0f}" for side in ("direct", "proxied")]
            for which, text in (("event_ms", "each event"), ("first_event_ms", "first event")):
                added = [f"{each:.2f}" for each in row[f"added_{which}"]]
                cpu = f"{row['cpu_us_per_event']:.0f}"
                table.add_row(f"{name}: {text}", *rates, f"{row['throughput_ratio']:.3f}", *added, cpu)
        console.print(table)
    if "budgeted" in found:
        table = Table(f"budgeted, {SAMPLES} samples", "requests/s", "of its_hub's", "CPU ms/request")
        for name, row in found["budgeted"].items():
            for side, seen in row.items():
                rate, cpu = seen["requests_per_s"], seen["cpu_ms_per_request"]
                ratio = rate / row["its_hub"]["requests_per_s"]
                table.add_row(f"{name}: {side}", f"{rate:.1f}", f"{ratio:.2f}", f"{cpu:.1f}")
        console.print(table)
    if "memory" in found:
        table = Table("requests", "RSS, MiB")
        for requests, size in found["memory"]["requests_and_rss_mib"]:
            table.add_row(str(requests), f"{size:.1f}")
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=8.0, help="of streaming, for each side")
    parser.add_argument("--requests", type=int, default=320, help="budgeted ones, for each side")
    parser.add_argument("--memory-requests", type=int, default=20_000)
    parser.add_argument("--only", choices=["pass_through", "budgeted", "memory"], action="append")
    parser.add_argument("--out", type=Path, default=Path("results/gateway.json"), help="where the numbers go")
    options = parser.parse_args()
    parts = options.only or ["pass_through", "budgeted", "memory"]
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        if "pass_through" in parts:
            found["pass_through"] = measure_pass_through(folder, options.seconds)
        if "budgeted" in parts:
            found["budgeted"] = measure_budgeted(folder, options.requests)
        if "memory" in parts:
            found["memory"] = measure_memory(folder, options.memory_requests)
    show(found)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
