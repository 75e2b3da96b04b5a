"""What clients and load tools report of a stream, beside what was true of it.

    python -m benchmarks.clients [--tools VENV] [--only NAME ...] [--out FILE]

An upstream of 20 tokens, 30 ms apart; the front-end; and each client, plain and with a budget of four samples. What was
true is read off the socket. Ends with 1 where a client that is there reports something else, or fails.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.clients.figures import ANSWER_TOKENS, KINETICS, REQUESTS, TOKEN_MS, Figures, wrong
from benchmarks.clients.load_tools import LOAD_TOOLS, Missing
from benchmarks.clients.sdks import SDKS
from benchmarks.gateway import CONFIG, QUESTION, front_end, upstream


def true_figures(url: str, budget: bool) -> Figures:
    """As they stand on the wire, the means of a few requests: when bytes with text came, one after another."""
    body = QUESTION | {"max_tokens": 50, "stream": True} | ({"kinetics": KINETICS} if budget else {})
    firsts, gaps = [], []
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for _ in range(REQUESTS):
            began = time.perf_counter()
            arrivals = []
            with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                for line in answer.iter_lines():
                    choices = json.loads(line[6:])["choices"] if line.startswith("data: {") else []
                    if choices and choices[0]["delta"].get("content"):
                        arrivals.append(1000 * (time.perf_counter() - began))
            firsts.append(arrivals[0])
            gaps += [later - earlier for earlier, later in pairwise(arrivals)]
    return Figures(fmean(firsts), fmean(gaps) if gaps else 0.0, float(ANSWER_TOKENS))


def tokenizer_in(folder: Path) -> None:
    """One of a thousand words, for the tools that make up prompts."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["<unk>", "</s>", *(f"w{number}" for number in range(998))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "</s>"}))


def ask(client: Callable[[], Figures], true: Figures) -> dict[str, Any]:
    """What a client says, and what is wrong with it."""
    try:
        figures = client()
    except Missing as error:
        return {"missing": str(error)}
    except Exception as error:  # whatever a client raises is the finding
        return {"wrong": [f"{type(error).__name__}: {error}"]}
    return {"reported": asdict(figures), "wrong": wrong(figures, true)}


def measure(folder: Path, tools: Path, only: list[str]) -> list[dict[str, Any]]:
    found = []
    with upstream(str(folder), ANSWER_TOKENS, TOKEN_MS) as engine, front_end(engine) as (port, _):
        url = f"http://127.0.0.1:{port}"
        for budget in (False, True):
            true_figures(url, budget)  # what is loaded at the first request of a kind is loaded now
        for budget in (False, True):
            clients: dict[str, Callable[[], Figures]] = {
                name: lambda sdk=sdk, budget=budget: sdk(url, budget)  # type: ignore[misc]
                for name, sdk in SDKS.items()
            }
            for name, tool in LOAD_TOOLS.items():
                clients[name] = lambda tool=tool, budget=budget: tool(url, budget, folder, tools)  # type: ignore[misc]
            for name, client in clients.items():
                if not only or name in only:
                    true = true_figures(url, budget)  # just before, for the machine may do something else meanwhile
                    row = {"client": name, "budget": budget, "true": asdict(true), **ask(client, true)}
                    print(f"{name}, {'budget' if budget else 'plain'}: {_verdict(row)}", file=sys.stderr, flush=True)
                    found.append(row)
    return found


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("client", "", "text after, ms", "true", "ms a token", "true", "tokens", "true", "")
    for row in rows:
        cells: list[str] = []
        for name in ("text_ms", "token_ms", "tokens"):
            cells += [_number(row.get("reported", {}).get(name)), _number(row["true"][name])]
        table.add_row(row["client"], "budget" if row["budget"] else "plain", *cells, _verdict(row))
    Console(width=120).print(table)


def _verdict(row: dict[str, Any]) -> str:
    if "missing" in row:
        return f"not installed ({row['missing']})"
    return "wrong: " + ", ".join(row["wrong"]) if row["wrong"] else "right"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tools", type=Path, default=Path(".venv-tools"), help="where guidellm and aiperf are")
    parser.add_argument("--only", action="append", choices=[*SDKS, *LOAD_TOOLS], default=[])
    parser.add_argument("--out", type=Path, default=Path("results/clients.json"), help="where the numbers go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        tokenizer_in(folder)
        rows = measure(folder, options.tools.absolute(), options.only)
    show(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(any(row.get("wrong") for row in rows))


if __name__ == "__main__":
    main()
