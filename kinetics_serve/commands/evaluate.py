"""`kinetics-serve eval`: try a model on a task, record the trials, report."""

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetics_serve.commands.options import ApiKey, check_folder_to_write, checked_url
from kinetics_serve.commands.progress import Lines
from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, errors, fail, output

if TYPE_CHECKING:
    from kinetics_serve.cost import HardwareProfile, KVPolicy
    from kinetics_serve.evaluation.harness import Sampling
    from kinetics_serve.evaluation.tasks import Task


def evaluate(
    task: Annotated[
        str,
        typer.Option(help="gsm8k, aime24, aime25, math500, livecodebench, gsm8k-mini, times-tables, or FILE.jsonl."),
    ],
    upstream: Annotated[str, typer.Option(help="URL of a running vLLM server, or of kinetics-serve.")],
    out: Annotated[Path, typer.Option(help="Folder for traces and reports; an interrupted run goes on there.")],
    model: Annotated[str | None, typer.Option(help="The model's name there. Default: the first that it lists.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Folder or Hugging Face name of the model, where the server doesn't tell.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Samples of every question.")] = 32,
    kv_budget: Annotated[
        list[str] | None, typer.Option(help="dense, or tokens attended; repeat for several. Default: dense.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest sample.")] = 1024,
    temperature: Annotated[float, typer.Option(min=0)] = 0.7,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the first trial; every trial has a seed of its own.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Trials in flight; vLLM batches them.")] = 64,
    template: Annotated[
        str | None, typer.Option(help="Prompt with {query} in it, instead of the task's; other braces {{doubled}}.")
    ] = None,
    hardware_name: HardwareName = None,
    api_key: ApiKey = None,
) -> None:
    """Try a model on a task through any vLLM server: traces, pass@k, maj@k, length and eFLOPs."""
    from dataclasses import replace

    from kinetics_serve.engine.errors import EngineRefusesKey, EngineRejected, EngineUnavailable
    from kinetics_serve.evaluation.harness import Sampling
    from kinetics_serve.evaluation.tasks import TaskError, load_task
    from kinetics_serve.traces.traces import TracesError

    upstream = checked_url("--upstream", upstream)
    policies = [_kv_policy(stated) for stated in kv_budget or ["dense"]]
    profile = chosen_hardware(hardware_name)
    try:
        chosen = load_task(task, limit)
        if template is not None:
            try:
                asked = template.format(query="\0")
            except (LookupError, ValueError):
                asked = ""
            if "\0" not in asked:
                raise fail("--template must have {query} where the question goes, and double all other braces: {{ }}")
            chosen = replace(chosen, template=template)
        check_folder_to_write(out)
        sampling = Sampling(max_tokens, temperature, top_p, seed)
        for kv in policies:
            recording = _record(
                chosen, upstream, api_key, model, architecture, kv, sampling, trials, concurrency, out, profile.name
            )
            traces = asyncio.run(recording)
            _report(traces, profile)
    except EngineRefusesKey:
        refused = "does not take that key" if api_key else "wants a key"
        raise fail(f"{upstream} {refused}: state it with --api-key, or in the variable OPENAI_API_KEY") from None
    except (TaskError, TracesError, EngineRejected, EngineUnavailable, OSError) as error:
        raise fail(error) from None
    except KeyboardInterrupt:
        raise fail("interrupted: the same command goes on where it stopped") from None


async def _record(
    task: "Task",
    url: str,
    api_key: str | None,
    model: str | None,
    architecture: str | None,
    kv: "KVPolicy",
    sampling: "Sampling",
    trials: int,
    concurrency: int,
    out: Path,
    hardware: str,
) -> Path:
    """Records what is missing and returns the traces' file."""
    from dataclasses import asdict

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from kinetics_serve.cost import load_architecture
    from kinetics_serve.engine.client import new_client
    from kinetics_serve.engine.upstream import Upstream
    from kinetics_serve.evaluation.engine_facts import engine_facts
    from kinetics_serve.evaluation.harness import REPETITION_DETECTION, Harness
    from kinetics_serve.traces.recorder import Recorder
    from kinetics_serve.traces.traces import Metadata

    async with new_client() as client:
        server = Upstream(url, client, api_key=api_key)
        cards = {card.name: card for card in await server.models()}
        name = model or next(iter(cards))
        if name not in cards:
            raise fail(f"{url} does not serve {name!r}; there is {', '.join(cards)}")
        try:
            known = await asyncio.to_thread(load_architecture, architecture or cards[name].root)
        except (OSError, ValueError) as error:
            raise fail(f"{name} can't be priced ({error}): name its folder with --architecture") from None
        stated = {**asdict(sampling), "template": task.template, "repetition_detection": REPETITION_DETECTION}
        del stated["max_tokens"]
        engine = await engine_facts(server, cards[name].root) | {"hardware": hardware}
        metadata = Metadata(task.name, name, sampling.max_tokens, kv, known, stated, engine)
        part = "dense" if kv.budget is None else f"kv{kv.budget}"
        path = out / f"{task.name}_{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}_{part}.jsonl"
        recorder = Recorder(path, metadata)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=errors) as progress:
            total = trials * len(task.problems)
            bar = progress.add_task(path.stem, total=total, rate="")
            lines = Lines(path.stem, errors.print)
            tokens = 0

            def count(more: int) -> None:
                nonlocal tokens
                tokens += more
                progress.advance(bar)
                elapsed = progress.tasks[0].elapsed or 1.0
                progress.update(bar, rate=f"{tokens / elapsed:.0f} tokens/s")
                if not errors.is_terminal:
                    lines(int(progress.tasks[0].completed), total, tokens)

            harness = Harness(task, server, name, sampling, kv, recorder, count)
            progress.update(bar, completed=total - len(harness.missing(trials)))
            try:
                await harness.run(trials, concurrency)
            finally:
                recorder.close()
    return path


def _report(path: Path, hardware: "HardwareProfile") -> None:
    from rich.table import Table

    from kinetics_serve.evaluation.report import report
    from kinetics_serve.traces.traces import read

    found = report(read(path), hardware)
    written = path.with_suffix(".report.json")
    written.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
    table = Table(title=f"{found.task}, {found.model}: {found.questions} questions, 95 % intervals")
    for heading in ("k", "pass@k", "maj@k", "eFLOPs of k"):
        table.add_column(heading, justify="right")
    for point in found.at:
        table.add_row(
            str(point.samples),
            f"{point.coverage.mean:.3f} ({point.coverage.low:.3f}–{point.coverage.high:.3f})",
            f"{point.majority.mean:.3f} ({point.majority.low:.3f}–{point.majority.high:.3f})",
            f"{point.eflops.mean:.3e} ({point.eflops.low:.3e}–{point.eflops.high:.3e})",
        )
    output.print(table)
    output.print(
        f"{found.tokens.mean:.0f} tokens a sample ({found.tokens.low:.0f}–{found.tokens.high:.0f}), "
        f"{found.truncated:.1%} cut off"
    )
    output.print(f"wrote {path} and {written.name}", soft_wrap=True)


def _kv_policy(stated: str) -> "KVPolicy":
    from kinetics_serve.engine.sparse import kv_policy

    if stated == "dense":
        return kv_policy(None)
    if not stated.isdecimal() or int(stated) < 1:
        raise fail(f"--kv-budget takes dense or a number of tokens; given: {stated!r}")
    return kv_policy(int(stated))
