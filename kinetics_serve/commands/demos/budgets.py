"""The demo: what a budget of 1, 4 and 16 samples' worth buys from the bundled model, and what sparse attention saves
where prompts are long, through the openai SDK."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from kinetics_serve.commands.demos.serving import NotStarted, console, serving
from kinetics_serve.engine.embedded import bundled_model
from kinetics_serve.observability.numbers import dollars_for_people, for_people

if TYPE_CHECKING:  # the command says it where the SDK is missing
    from openai import AsyncOpenAI

SAMPLES_WORTH = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class Task:
    """Questions with known answers. extractor and pattern: as in the API's `kinetics.answer`."""

    name: str
    questions: tuple[tuple[str, str], ...]
    max_tokens: int
    extractor: str
    pattern: str | None = None
    preamble: str = ""
    temperature: float = 0.7


TIMES_TABLES = Task(
    "times tables",
    tuple(
        (f"What is {a} times {b}? Answer with the number only.", str(a * b))
        for a, b in random.Random(3).sample([(a, b) for a in range(3, 10) for b in range(3, 10)], 12)
    ),
    max_tokens=128,
    extractor="number",
)
CAPITALS = Task(
    "capitals",
    tuple(
        (f"What is the capital of {country}?", capital)
        for country, capital in {
            "France": "Paris",
            "Japan": "Tokyo",
            "Italy": "Rome",
            "Egypt": "Cairo",
            "Russia": "Moscow",
            "Spain": "Madrid",
        }.items()
    ),
    max_tokens=48,
    extractor="regex",
    pattern=r"(?i)capital(?: city)? of [\w ]+? is (?:the city of )?\W*(\w+)",
)
LOG = "".join(
    f"Day {day}: {chance.randint(20, 180)} miles to the {chance.choice(('north', 'east', 'south', 'west'))}, "
    f"{chance.choice(('clear sky', 'light rain', 'strong wind', 'fog at noon'))}.\n"
    for chance in [random.Random(7)]
    for day in range(1, 151)
)
"""About 2,700 tokens."""
AFTER_A_LOG = replace(
    CAPITALS,
    name="capitals, long",
    preamble=f"Here is a ship's log.\n\n{LOG}\nNow a question about geography: ",
    temperature=0.0,
)


@dataclass(slots=True)
class Row:
    """What one budget bought on one task. Amounts are sums over its questions."""

    task: Task
    samples_worth: int
    kv_budget: int | str = "auto"
    attended: int | str = ""
    budget: int = 0
    spent: int = 0
    spent_dollars: float | None = None
    memory_bytes: float = 0
    samples: int = 0
    correct: int = 0
    within_budget: bool = True

    @property
    def strategy(self) -> str:
        return "single" if self.samples_worth == 1 else "majority_vote"

    def add(self, bill: dict[str, Any], expected: str) -> None:
        self.attended = bill["kv_budget"] if bill["kv_budget"] != "dense" else "all"
        self.budget += bill["budget_eflops"]
        self.spent += bill["spent_eflops"]
        if "spent_dollars" in bill:
            self.spent_dollars = (self.spent_dollars or 0) + bill["spent_dollars"]
        self.memory_bytes += bill["memory_bytes"]
        self.samples += bill["samples_started"]
        self.correct += (bill["answer"] or "").casefold() == expected.casefold()
        self.within_budget &= bill["spent_eflops"] <= bill["budget_eflops"]


def main(dollars_per_hour: float | None = None) -> int:
    """Runs the demo and returns the exit status: 0 only if every part of it worked."""
    options = [] if dollars_per_hour is None else ["--price-per-gpu-hour", str(dollars_per_hour)]
    try:
        import openai  # noqa: F401
    except ImportError:
        console.print("The demo speaks to the server through the openai SDK: pip install openai")
        return 1
    started = time.monotonic()
    console.print("Starting kinetics-serve with the bundled model and an embedded vLLM …")
    try:
        with serving(*options) as url:
            rows = asyncio.run(_ask_everything(url))
    except NotStarted as error:
        console.print(str(error), markup=False)
        return 1
    console.print(_table(rows))
    problems = _problems(rows)
    for problem in problems:
        console.print(f"Not as it should be: {problem}")
    console.print(f"{time.monotonic() - started:.0f} s in all.")
    console.print(_bottom_line(rows), soft_wrap=True)
    return 1 if problems else 0


async def _ask_everything(url: str) -> list[Row]:
    """All rows at once: an engine takes hardly longer for a step of many samples than for one of a few."""
    from openai import AsyncOpenAI

    rows = [Row(task, worth) for task in (TIMES_TABLES, CAPITALS) for worth in SAMPLES_WORTH]
    rows += [Row(AFTER_A_LOG, 1, kv_budget) for kv_budget in ("dense", 512)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("asking", total=sum(len(row.task.questions) for row in rows))
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600, max_retries=0) as client:
            # The log goes into the prefix cache first, so that both of its rows find it there.
            await client.chat.completions.create(
                model=bundled_model.NAME, messages=[{"role": "user", "content": AFTER_A_LOG.preamble}], max_tokens=1
            )
            await asyncio.gather(*(_ask(client, row, lambda: progress.advance(bar)) for row in rows))
    return rows


async def _ask(client: "AsyncOpenAI", row: Row, on_answer: Callable[[], None]) -> None:
    task = row.task

    async def ask(number: int, question: str, answer: str) -> None:
        completion = await client.chat.completions.create(
            model=bundled_model.NAME,
            messages=[{"role": "user", "content": task.preamble + question}],
            max_tokens=task.max_tokens,
            temperature=task.temperature,
            seed=1000 * number,
            extra_body={
                "kinetics": {
                    "budget": {"samples": row.samples_worth},
                    "strategy": row.strategy,
                    "max_samples": max(SAMPLES_WORTH),
                    "kv_budget": row.kv_budget,
                    "answer": {"extractor": task.extractor, "pattern": task.pattern},
                }
            },
        )
        row.add(completion.model_extra["kinetics"], answer)  # type: ignore[index]
        on_answer()

    await asyncio.gather(*(ask(number, *pair) for number, pair in enumerate(task.questions)))


def _table(rows: list[Row]) -> Table:
    title = "What each budget bought (sums over the questions; a sample: one of full length, dense)"
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("task", "strategy"):
        table.add_column(heading)
    for heading in (
        "KV tokens\nat most",
        "budget\nsamples",
        "budget\neFLOPs",
        "spent\neFLOPs",
        "memory\nbytes",
        "samples\nstarted",
        "right\nanswers",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.task.name,
            row.strategy,
            str(row.attended),
            str(row.samples_worth),
            for_people(row.budget),
            _with_money(row),
            for_people(row.memory_bytes),
            str(row.samples),
            f"{row.correct}/{len(row.task.questions)}",
        )
    return table


def _with_money(row: Row) -> str:
    """What was spent: "17.2 G", and "$0.004, 17.2 G" where the price of an hour was stated."""
    spent = for_people(row.spent)
    return spent if row.spent_dollars is None else f"{dollars_for_people(row.spent_dollars)}, {spent}"


def _bottom_line(rows: list[Row]) -> str:
    """What the budget bought, in a sentence."""
    least, most = (_row(rows, worth) for worth in (min(SAMPLES_WORTH), max(SAMPLES_WORTH)))
    times, unspent = most.spent / least.spent, 1 - most.spent / most.budget
    return (
        f"On the {TIMES_TABLES.name}, {times:.1f} times the eFLOPs bought {most.correct} right answers of "
        f"{len(TIMES_TABLES.questions)} instead of {least.correct}; {unspent:.0%} of that budget was left over."
    )


def _row(rows: list[Row], worth: int) -> Row:
    return next(row for row in rows if row.task is TIMES_TABLES and row.samples_worth == worth)


def _problems(rows: list[Row]) -> list[str]:
    problems = [
        f"{row.task.name} at {row.samples_worth} samples' worth spent more than its budget"
        for row in rows
        if not row.within_budget
    ]
    if _row(rows, max(SAMPLES_WORTH)).correct <= _row(rows, 1).correct:
        problems.append("majority voting at 16 samples' worth did not beat a single sample on the times tables")
    dense, sparse = (row for row in rows if row.task is AFTER_A_LOG)
    if sparse.correct < dense.correct or sparse.spent >= dense.spent:
        problems.append("sparse attention on the long prompt did not save eFLOPs at the same accuracy")
    return problems
