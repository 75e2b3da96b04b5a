"""The planner's demo: what a budget buys from the bundled model on times tables, measured and then followed."""

import time
from pathlib import Path

from kinetics_serve.commands.calibrate import calibrate
from kinetics_serve.commands.demos.serving import NotStarted, console, serving
from kinetics_serve.commands.evaluate import evaluate
from kinetics_serve.commands.frontier import frontier
from kinetics_serve.commands.options import load_calibration
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.planner.choose import AccuracyOutOfReach, at_recorded_lengths, choose_for_accuracy
from kinetics_serve.planner.figures import kv_label
from kinetics_serve.traces.traces import read

TASK = "times-tables"
HARDWARE = "paper-b200"
"""The paper's: on a CPU's prices, arithmetic hides what attention costs."""

QUESTIONS = 20
TRIALS = 8
MAX_TOKENS = 96
KV_BUDGETS = ("dense", "112", "160")
TEMPLATE = """You help children with their times tables. A child asks you about two numbers between two and \
twelve. Multiplying is adding the same number again and again: four times three is three and three and three and \
three, \
which makes twelve. It does not matter which of the two numbers comes first: three times four makes twelve as well. \
Times ten puts a zero behind the number, and times five is half of that. Times nine is times ten without the number \
itself: nine times four is forty less four, which makes thirty-six. Think of a fact near by that you are sure of, and \
add or take away what is missing. Work it out in a few short steps, check the result once, and then say the number, \
without a long explanation.

{query}"""
"""Long enough that a KV budget leaves something out."""

ACCURACIES = (0.4, 0.5, 0.6, 0.7)


def main(folder: Path, limit: int | None = None) -> int:
    """Returns the exit status."""
    started = time.monotonic()
    console.print("Starting kinetics-serve with the bundled model, an embedded vLLM and sparse attention …")
    try:
        with serving("--kv-budget", KV_BUDGETS[1]) as url:
            evaluate(
                task=TASK,
                upstream=url,
                out=folder / "traces",
                trials=TRIALS,
                kv_budget=list(KV_BUDGETS),
                max_tokens=MAX_TOKENS,
                limit=limit or QUESTIONS,
                concurrency=32,
                template=TEMPLATE,
                hardware_name=HARDWARE,
            )
    except NotStarted as error:
        console.print(str(error), markup=False)
        return 1
    file = folder / "calibration.json"
    traces = sorted((folder / "traces").glob("*.jsonl"))
    calibrate(traces, out=file, repeats=5, hardware_name=HARDWARE)
    frontier(file, out=folder / "figures")
    calibration = load_calibration(file)
    prompt_tokens = read(traces[0]).questions[0].prompt_tokens
    for accuracy in ACCURACIES:
        console.print(_plan(calibration, accuracy, prompt_tokens), soft_wrap=True)
    console.print(f"kinetics-serve serve --calibration {file} follows it. {time.monotonic() - started:.0f} s in all.")
    return 0


def _plan(calibration: Calibration, accuracy: float, prompt_tokens: int) -> str:
    """The cheapest plan for an accuracy, in a line."""
    try:
        choice = choose_for_accuracy(calibration, accuracy, at_recorded_lengths(calibration, prompt_tokens))
    except AccuracyOutOfReach as error:
        return str(error)
    point = choice.point
    return (
        f"for an accuracy of {accuracy:.0%}: {point.strategy} with {point.samples_worth:g} samples' worth of "
        f"{point.arm.max_tokens} tokens, KV budget {kv_label(point.arm.kv)}; expected {point.accuracy.mean:.2f} "
        f"({point.accuracy.low:.2f} to {point.accuracy.high:.2f}) for {choice.expected:.2e} eFLOPs"
    )
