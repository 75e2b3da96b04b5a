"""A load test, and its report: make loadtest, or

    python -m deploy.loadtest [--url URL] [--users N] [--seconds S] [-- OPTIONS OF SERVE]

Without a URL (or LOADTEST_URL) it starts a server of its own, with the embedded engine and the options after --, and
stops it in the end. Keys come in LOADTEST_API_KEY, several with commas between: each is a tenant.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
from rich.console import Console

from deploy.loadtest import counted, records
from deploy.loadtest.processes import NotStarted, embedded_server, guarded, last_lines
from deploy.loadtest.report import LoadTest, show, write
from deploy.loadtest.sums import sums

ROOT = Path(__file__).parents[2]
LAST_ANSWERS_S = 60
"""That what still runs in the end has to get its answer."""


class Unfit(Exception):
    """What can't be tested, and why."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is stopped
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "records.jsonl"
    lines.unlink(missing_ok=True)
    with ExitStack() as stack:
        try:
            url = options.url or _own_server(stack, options)
            model = options.model or _first_model(url)
            before = counted.ask(url)
            _run_locust(options, url, model, lines)
            after = counted.ask(url)
        except (NotStarted, Unfit) as error:
            print(f"loadtest: {error}", file=sys.stderr)
            return 2
    found = records.read(lines) if lines.exists() else []
    meanwhile = after.since(before) if before is not None and after is not None else None
    test = LoadTest(url, model, options.users, found, meanwhile)
    show(test, Console(width=None if sys.stdout.isatty() else 200))
    print(f"{write(test, options.out)} has plots")
    return 0 if sums(found).answered else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.loadtest", description=__doc__, formatter_class=_Raw)
    address = os.environ.get("LOADTEST_URL") or None
    parser.add_argument("--url", default=address, help="of a server that runs already; else one is started")
    parser.add_argument("--model", help="default: the server's first")
    parser.add_argument("--users", type=_number, default=4)
    parser.add_argument("--seconds", type=_number, default=120)
    parser.add_argument("--max-tokens", type=_number, default=32, help="of each sample")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked, and in which order")
    parser.add_argument("--out", type=Path, default=Path("build/loadtest"), help="where the report goes")
    parser.add_argument("serve", nargs="*", metavar="-- OPTION", help="of kinetics-serve serve, such as -- --model M")
    options = parser.parse_args(arguments)
    if options.url is not None:
        options.url = options.url.rstrip("/")
        if not options.url.startswith(("http://", "https://")):
            parser.error(f"--url: expected a URL such as http://127.0.0.1:8000; given: {options.url!r}")
        if options.serve:
            parser.error(f"options after -- are for a server that is started here; given beside --url: {options.serve}")
    return options


class _Raw(argparse.RawDescriptionHelpFormatter):
    """The description as it is written."""


def _number(stated: str) -> int:
    if not stated.isdecimal() or int(stated) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1; given: {stated!r}")
    return int(stated)


def _own_server(stack: ExitStack, options: argparse.Namespace) -> str:
    log = options.out / "server.log"
    print(f"starting kinetics-serve with an embedded engine; its log is {log}", flush=True)
    return stack.enter_context(embedded_server(options.serve, log))


def _first_model(url: str) -> str:
    key = os.environ.get("LOADTEST_API_KEY", "").split(",")[0].strip()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=30, trust_env=False)
    except httpx.HTTPError as error:
        raise Unfit(f"{url} can't be reached: {error}") from None
    if answer.status_code == 401:
        raise Unfit(f"{url} wants a key: set LOADTEST_API_KEY")
    if answer.status_code != 200 or not answer.json()["data"]:
        raise Unfit(f"{url}/v1/models names no model: status {answer.status_code}")
    return str(answer.json()["data"][0]["id"])


def _run_locust(options: argparse.Namespace, url: str, model: str, lines: Path) -> None:
    """As a process of its own: gevent changes Python's sockets."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "deploy" / "loadtest" / "locustfile.py"), "--headless"]
    command += ["--host", url, "--model", model, "--max-tokens", str(options.max_tokens), "--seed", str(options.seed)]
    command += ["--users", str(options.users), "--spawn-rate", str(options.users)]
    command += ["--run-time", f"{options.seconds}s", "--stop-timeout", str(LAST_ANSWERS_S)]
    command += ["--exit-code-on-error", "0", "--only-summary", "--records", str(lines.absolute())]
    print(f"{options.users} users for {options.seconds} s: {model} at {url}", flush=True)
    log = options.out / "locust.log"
    with guarded(command, log) as process:
        try:
            status = process.wait(options.seconds + 2 * LAST_ANSWERS_S)
        except subprocess.TimeoutExpired:
            raise Unfit(f"Locust did not end; see {log}") from None
    if status:
        why = f"{log} ends with\n{last_lines(log)}"
        raise Unfit(f"Locust, which pip install -e '.[loadtest]' brings, ended with status {status}: {why}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
