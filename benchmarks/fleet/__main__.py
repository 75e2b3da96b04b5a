"""A fleet of simulated engines behind real front-ends: how it fares, and where it is full.

    python -m benchmarks.fleet costs [--ledger URL] [--out DIR]
    python -m benchmarks.fleet simulate --engines N --front-ends N --samples-per-day N [--hours H] [--out FILE]
    python -m benchmarks.fleet limits COSTS [--engines N] [--requests R] [--tokens T]

Runner, strategies, routing, circuits, health checks, admission, quotas, charges, delivery, prices and metrics are the
product's own. Simulated are time, the engines (at the cost model's speed, saying what recorded traces say), the network
between, and the ledger's database. `costs` measures CPU time and a real ledger; `limits` is arithmetic on that.
"""

import argparse
import json
import logging
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.fleet import costs, figures
from benchmarks.fleet.saturation import Costs, Demand, line, saturation
from benchmarks.fleet.scenario import Scenario
from benchmarks.fleet.simulation import Fleet, run
from benchmarks.fleet.tally import summary
from kinetics_serve.cost.hardware import profile
from kinetics_serve.engine.pool import CHECKS_PER_S
from kinetics_serve.traces.traces import read

TRACES = Path("examples/traces/gsm8k-16.jsonl")


def machine() -> str:
    names = [each for each in Path("/proc/cpuinfo").read_text().splitlines() if each.startswith("model name")]
    return f"{names[0].partition(': ')[2] if names else platform.machine()}, {os.cpu_count()} cores"


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def measure(fleet: Fleet, options: argparse.Namespace) -> None:
    found: dict[str, Any] = {"machine": machine()}
    parts = {
        "routing": lambda: costs.routing(fleet),
        "admission": costs.admission,
        "whole_request": lambda: costs.whole_request(fleet),
        "check_s": costs.checks,
        "front_end": costs.front_end,
        "ledger": lambda: ledgers(options.ledger or []),
    }
    for name, part in parts.items():
        if not options.only or name in options.only:
            found[name] = part()
            print(f"{name}: {json.dumps(found[name])}", flush=True)
            write(options.out, found)


def ledgers(urls: list[str]) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        found = {"sqlite": costs.ledger(f"sqlite:///{folder}/ledger.db")}
    return found | {url.partition(":")[0]: costs.ledger(url) for url in urls}


def simulate(fleet: Fleet, options: argparse.Namespace) -> None:
    scenario = Scenario(
        engines=options.engines,
        front_ends=options.front_ends,
        samples_per_day=options.samples_per_day,
        from_hour=options.from_hour,
        hours=options.hours,
        stretch=options.stretch,
        deaths_per_day=options.deaths_per_day,
        deploy_hour=options.deploy_hour,
        seed=options.seed,
    )
    began = time.monotonic()
    done = run(fleet, scenario)
    took = time.monotonic() - began
    hourly = fleet.hardware.dollars_per_hour
    found = summary(done.tally, scenario.seconds, done.tokens, done.booked, hourly, 60 * options.warm_minutes)
    if done.reserved or found.spent != found.booked or found.most_spent > 1:
        sys.exit(f"spent {found.spent} eFLOPs, booked {found.booked}, still reserved {done.reserved}: {found}")
    speed = fleet.speed(scenario.stretch)
    print(json.dumps(asdict(found), indent=1))
    print(f"{scenario.hours:g} simulated hours took {took:.0f} s on {machine()}")
    content = {"machine": machine(), "took_s": took, "scenario": asdict(scenario), "engine": asdict(speed)}
    write(options.out, content | {"summary": asdict(found), "events": done.tally.events})
    if options.figure:
        title = (
            f"{scenario.engines:,} engines, {scenario.front_ends} front-ends, {found.samples_per_day:.2g} samples a day"
        )
        figures.day(done.tally, scenario.from_hour, title, options.figure)


def costs_of(measured: dict[str, Any]) -> Costs:
    """From what `costs` wrote. The measured front-end has no ledger, and one engine to choose."""
    constant, slope = line({float(tokens): seconds for tokens, seconds in measured["front_end"].items()})
    books = measured["ledger"]
    return Costs(
        request_s=constant,
        token_s=slope,
        pick_s={int(engines): seconds for engines, seconds in measured["routing"].items()},
        check_s=measured["check_s"],
        checks_per_s=CHECKS_PER_S,
        ledger_cpu_s=max(each["cpu_s"] for each in books.values()),
        settlements_per_s={kind: each["requests_per_s"] for kind, each in books.items()},
    )


def limits(options: argparse.Namespace) -> None:
    measured = costs_of(json.loads(options.costs.read_text()))
    found = saturation(measured, Demand(options.engines, options.requests, options.tokens))
    print(json.dumps(asdict(found), indent=1))
    if options.figure:
        before = json.loads(options.before.read_text())["routing"] if options.before else {}
        figures.limits(measured, {int(engines): seconds for engines, seconds in before.items()}, options.figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=TRACES, help="recorded by Qwen2.5-Coder-1.5B-Instruct")
    parser.add_argument("--hardware", default="l4", help="of an engine")
    parser.add_argument("--memory", type=float, default=24e9, help="bytes of an engine")
    parser.add_argument("--price-per-gpu-hour", type=float, help="dollars: shows money too")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("costs", help="measure what a front-end's parts and the ledger cost")
    measuring.add_argument(
        "--ledger", action="append", help="URL of an empty PostgreSQL database; SQLite is measured anyway"
    )
    measuring.add_argument("--only", action="append", help="a part: routing, admission, …")
    measuring.add_argument("--out", type=Path, default=Path("results/fleet/costs.json"))
    simulating = commands.add_parser("simulate", help="run a fleet in simulated time")
    simulating.add_argument("--engines", type=int, default=100)
    simulating.add_argument("--front-ends", type=int, default=2)
    simulating.add_argument("--samples-per-day", type=float, default=1e6)
    simulating.add_argument("--from-hour", type=float, default=0.0, help="of the day; the load peaks at 15")
    simulating.add_argument("--hours", type=float, default=24.0)
    simulating.add_argument("--warm-minutes", type=float, default=5.0, help="left out of rates and latencies")
    simulating.add_argument("--stretch", type=int, default=16, help="how many times as long as recorded samples are")
    simulating.add_argument("--deaths-per-day", type=float, default=1.0, help="of each engine")
    simulating.add_argument("--deploy-hour", type=float, help="when everything is restarted, part by part")
    simulating.add_argument("--seed", type=int, default=0)
    simulating.add_argument("--figure", type=Path, help="an SVG of the run")
    simulating.add_argument("--out", type=Path, default=Path("results/fleet/run.json"))
    limiting = commands.add_parser("limits", help="where a fleet is full, from measured costs")
    limiting.add_argument("costs", type=Path, help="what the command costs wrote")
    limiting.add_argument("--engines", type=int, default=10_000)
    limiting.add_argument("--requests", type=float, default=300.0, help="a second, at the peak")
    limiting.add_argument("--tokens", type=float, default=1000.0, help="of a request, all samples together")
    limiting.add_argument("--before", type=Path, help="costs of an older release, to draw beside")
    limiting.add_argument("--figure", type=Path, help="an SVG")
    options = parser.parse_args()
    logging.getLogger("kinetics_serve").setLevel(logging.ERROR)  # engines die here by the hundred
    if options.command == "limits":
        return limits(options)
    hardware = replace(profile(options.hardware), dollars_per_hour=options.price_per_gpu_hour)
    fleet = Fleet(read(options.traces), hardware, options.memory)
    return measure(fleet, options) if options.command == "costs" else simulate(fleet, options)


if __name__ == "__main__":
    main()
