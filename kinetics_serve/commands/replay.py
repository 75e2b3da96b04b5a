"""`kinetics-serve replay`: a policy on recorded traces."""

import json
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from kinetics_serve.commands.options import ArchitectureName, TokenizerName, TracesFile, budget_of, open_traces
from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, fail, output
from kinetics_serve.observability.numbers import for_people


def replay(
    traces_file: TracesFile,
    budget: Annotated[str, typer.Option(help="eFLOPs of a request, such as 4e13, or 8samples, or 20000tokens.")],
    strategy: Annotated[str, typer.Option(help="As in a request's kinetics.strategy.")] = "auto",
    max_samples: Annotated[int, typer.Option(min=1)] = 32,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a sample. Default: the recording's.")] = None,
    stop_confidence: Annotated[float, typer.Option(min=1e-6, max=1.0)] = 0.95,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each question is asked.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the trials.")] = 0,
    strategy_options: Annotated[
        str | None, typer.Option(help="As in a request: JSON, such as '{\"stop_confidence\": 0.9}'.")
    ] = None,
    cache_block: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens of a prefix-cache block; 0: no cache. Default: what the traces say."),
    ] = None,
    architecture: ArchitectureName = None,
    tokenizer: TokenizerName = None,
    hardware_name: HardwareName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask recorded questions again under a budget: accuracy and spend, with 95 % intervals."""
    from pydantic import ValidationError

    from kinetics_serve.cost import Price
    from kinetics_serve.planner.budget import BudgetTooSmall
    from kinetics_serve.planner.plan import plan
    from kinetics_serve.registry import BrokenPart, UnknownPart
    from kinetics_serve.runner.replays import Recording, replay_all
    from kinetics_serve.strategies.spec import AUTO, STRATEGIES, policy_of

    options = _object(strategy_options)
    if strategy != AUTO:
        try:
            policy_of(strategy, options, stop_confidence)
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise fail(f"--strategy-options of {strategy}: {reasons}") from None
        except (BrokenPart, UnknownPart) as error:
            raise fail(error) from None
        if STRATEGIES.get(strategy).arms > 1:
            raise fail(f"{strategy} runs on several models or KV budgets: `calibrate` on the traces of all replays it")
    elif options:
        raise fail("--strategy-options are of a strategy: name one")
    stated = budget_of(budget)
    traces = open_traces(traces_file, architecture, tokenizer)
    assert traces.metadata.architecture is not None
    if max_tokens is not None and max_tokens > traces.longest:
        raise fail(f"samples were recorded with at most {traces.longest} tokens: --max-tokens {max_tokens} is more")
    price = Price.on(traces.metadata.architecture, chosen_hardware(hardware_name))
    started = time.process_time()
    try:
        outcome = replay_all(
            [Recording(traces, price, max_tokens or traces.longest, max_samples)],
            lambda arms, eflops: (
                plan(strategy, stated, arms[0], stop_confidence=stop_confidence, options=options).policy
            ),
            lambda arms: stated.eflops(arms[0]),
            repeats=repeats,
            seed=seed,
            cache_block=cache_block,
        )
    except BudgetTooSmall as error:
        raise fail(error) from None
    seconds = time.process_time() - started
    if as_json:
        output.print_json(json.dumps({"strategy": strategy, "budget": budget, **asdict(outcome)}))
        return
    accuracy, spent = outcome.accuracy, outcome.eflops
    asked = f"{len(traces.questions)} questions of {traces.metadata.task}, each asked {repeats} times"
    output.print(f"{strategy} with {budget} on {asked}")
    output.print(f"  accuracy {accuracy.mean:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]", markup=False)
    output.print(
        f"  spent    {spent.mean:.3e} [{spent.low:.3e}, {spent.high:.3e}] eFLOPs of {outcome.budget:.3e}: "
        f"{for_people(spent.mean)} of {for_people(outcome.budget)}",
        markup=False,
    )
    output.print(f"  samples  {outcome.samples:.2f}, {outcome.tokens:.0f} tokens a request")
    output.print("  stopped  " + ", ".join(f"{reason} {count}" for reason, count in outcome.stop_reasons.items()))
    output.print(f"  {outcome.requests} requests replayed, {outcome.requests / seconds:.0f} a second of one core")


def _object(stated: str | None) -> dict[str, Any]:
    try:
        found = json.loads(stated or "{}")
    except ValueError as error:
        raise fail(f"--strategy-options is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise fail(f"--strategy-options must be a JSON object, given: {stated!r:.100}")
    return found
