"""Users for Locust, with the mix of `mix.py`: locust -f deploy/loadtest/locustfile.py --host http://127.0.0.1:8000

Each user asks, waits a moment and asks again. A request appears in Locust's own tables twice: as `answer`, to its end,
and as `text`, to its first text. With --records FILE, every one is a line there too.
"""

import itertools
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import gevent
import requests
from locust import User, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from deploy.loadtest.bills import Answer, read_stream, read_whole
from deploy.loadtest.mix import PATIENCE_S, Kind, choose, messages
from deploy.loadtest.records import ANSWERED, FAILED, LEFT, Record

TIMEOUT_S = (10, 600)
"""To connect, and from one byte of an answer to the next."""

KEYS = [key.strip() for key in os.environ.get("LOADTEST_API_KEY", "").split(",")]
"""Of tenants, whose users take turns. From the environment alone: everybody can read a command line."""

_numbers = itertools.count()


class Left(BaseException):
    """A client's patience is over. No error: what catches those must not catch it."""


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--model", default="", help="the model to ask; default: the server's first")
    parser.add_argument("--max-tokens", type=int, default=64, help="of each sample")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked, and in which order")
    parser.add_argument("--records", default="", help="file that gets a line of JSON for each request")


@events.test_start.add_listener
def _first_model(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    if not options.model:
        listed = _session(KEYS[0]).get(f"{environment.host}/v1/models", timeout=TIMEOUT_S)
        listed.raise_for_status()
        options.model = listed.json()["data"][0]["id"]


class Client(User):
    """One user of one tenant."""

    wait_time = between(0.2, 2)

    def on_start(self) -> None:
        options = self.environment.parsed_options
        number = next(_numbers)
        self.tenant = number % len(KEYS)
        self.random = Random(f"{options.seed}-{number}")
        self.session = _session(KEYS[self.tenant])
        self.fields = {"model": options.model, "max_tokens": options.max_tokens, "temperature": 0.7}
        self.records = Path(options.records) if options.records else None

    def on_stop(self) -> None:
        self.session.close()

    @task
    def ask(self) -> None:
        kind = choose(self.random)
        record = Record(kind.name, self.tenant, time.time())
        start = time.perf_counter()
        try:
            record.ended(self._answer(kind, start))
        except Left:
            pass
        except (requests.RequestException, ValueError) as error:
            record.outcome, record.code = FAILED, type(error).__name__
        finally:  # also where the test ends before the answer does
            record.seconds = time.perf_counter() - start
            self._note(record)

    def _answer(self, kind: Kind, start: float) -> Answer:
        def clock() -> float:
            return time.perf_counter() - start

        body = self.fields | kind.fields | {"messages": messages(self.random)}
        patience = self.random.uniform(*PATIENCE_S) if kind.leaves else None
        url = f"{self.environment.host}/v1/chat/completions"
        with (
            gevent.Timeout(patience, Left),
            self.session.post(url, json=body, stream=True, timeout=TIMEOUT_S) as response,
        ):
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return read_stream(response.iter_lines(), clock)
            return read_whole(response.json(), clock)

    def _note(self, record: Record) -> None:
        if self.records is not None:
            with self.records.open("a") as lines:
                lines.write(record.line())
        named = {"name": record.kind, "response_length": 0, "context": {}}
        wrong = None if record.outcome in (ANSWERED, LEFT) else RuntimeError(record.code)
        event = self.environment.events.request
        event.fire(request_type="answer", response_time=1000 * record.seconds, exception=wrong, **named)
        if record.text_s is not None:
            event.fire(request_type="text", response_time=1000 * record.text_s, exception=None, **named)


def _session(key: str) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy in between would be measured too
    if key:
        session.headers["authorization"] = f"Bearer {key}"
    return session
