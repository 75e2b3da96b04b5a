"""The command `kinetics-serve`."""

import asyncio
from enum import StrEnum
from math import ceil, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetics_serve.commands import ledger as ledger_commands
from kinetics_serve.commands.cost import cost
from kinetics_serve.commands.evaluate import evaluate
from kinetics_serve.commands.planning import CalibrationOption, calibrate, frontier, loaded, plan
from kinetics_serve.commands.replay import replay
from kinetics_serve.cost import hardware
from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, errors, fail, output

if TYPE_CHECKING:
    from kinetics_serve.ledger.ledger import Ledger

app = typer.Typer(
    help="Test-time scaling under a compute budget, in front of stock vLLM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class LogLevel(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"


class LogFormat(StrEnum):
    text = "text"
    json = "json"


def chosen_efforts(stated: list[str], defaults: dict[str, float]) -> dict[str, float]:
    """`NAME=SAMPLES` options over the defaults."""
    efforts = dict(defaults)
    for entry in stated:
        name, _, samples = entry.partition("=")
        try:
            efforts[name] = float(samples)
        except ValueError:
            raise fail(f"--effort takes NAME=SAMPLES, such as high=16; given: {entry!r}") from None
        if not 0 < efforts[name] < float("inf"):
            raise fail(f"--effort {name} must buy more than 0 samples; given: {samples}")
    return efforts


def chosen_architectures(stated: list[str]) -> dict[str | None, str]:
    """Folders or names by model; None stands for every other model."""
    found: dict[str | None, str] = {}
    for entry in stated:
        model, equals, folder = entry.rpartition("=")
        found[model if equals else None] = folder
    return found


def chosen_verifiers(stated: list[str]) -> frozenset[str]:
    """Hosts with their ports."""
    from kinetics_serve.scorers.verifier import host_of

    for host in stated:
        try:
            complete = host_of(f"http://{host}") == host.lower()
        except ValueError:
            complete = False
        if not complete:
            raise fail(f"--verifier takes HOST:PORT, such as verifier.example:443; given: {host!r}")
    return frozenset(host.lower() for host in stated)


def chosen_kv_budget(stated: str, model: str | None, engine_args: list[str]) -> int | None:
    """KV tokens that the engine attends to; None is dense. model: what an embedded engine serves."""
    from kinetics_serve.engine.sparse import MIN_KV_BUDGET, default_kv_budget, plugin_installed, speculates

    if stated == "auto":
        return default_kv_budget(model, engine_args) if model is not None else None
    if stated == "dense":
        return None
    if not stated.isdecimal() or int(stated) < MIN_KV_BUDGET:
        raise fail(f"--kv-budget takes auto, dense or a number of tokens from {MIN_KV_BUDGET}; given: {stated!r}")
    if model is not None and any(argument.startswith("--additional-config") for argument in engine_args):
        raise fail("--kv-budget sets the engine's --additional-config: put one of them into the other")
    if speculates(engine_args):
        raise fail("--kv-budget bills steps as sparse that speculative decoding makes dense: drop one of the two")
    if model is not None and not plugin_installed():
        raise fail("--kv-budget needs the vLLM plugin, which this installation lacks: install kinetics-serve again")
    return int(stated)


def chosen_media_hosts(stated: list[str]) -> frozenset[str]:
    from kinetics_serve.requests.media import media_host

    try:
        return frozenset(map(media_host, stated))
    except ValueError as error:
        raise fail(f"--allowed-media-host: {error}") from None


def opened_ledger(url: str, lease_s: int, told: bool) -> "Ledger":
    """The ledger at `url`, its schema up to date. told: the administrator knows already whether it has keys."""
    from kinetics_serve.ledger.database import Database
    from kinetics_serve.ledger.ledger import Ledger

    if not ledger_commands.run(url, ledger_commands.has_keys) and not told:
        errors.print("the ledger has no key yet, so every request will be refused: kinetics-serve keys create TENANT")
    return Ledger(Database(url), lease_s)


@app.command()
def serve(
    engine_args: Annotated[
        list[str] | None, typer.Argument(help="After --: further arguments for the embedded vLLM server.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Hugging Face name or folder for the embedded engine. Default: a bundled one.")
    ] = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="URL of a vLLM server that runs already; repeat for several.")
    ] = None,
    upstream_api_key: Annotated[
        str | None,
        typer.Option(
            envvar="KINETICS_UPSTREAM_API_KEY",
            show_envvar=True,
            help="What the upstreams know this server by. Better set in the environment than in the process list.",
        ),
    ] = None,
    first_token_timeout: Annotated[
        float, typer.Option(help="Seconds that an engine may take to a stream's first token.", min=0.001)
    ] = 600,
    token_timeout: Annotated[
        float, typer.Option(help="Seconds that an engine may take from one token to the next.", min=0.001)
    ] = 300,
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder or Hugging Face name of the upstreams' model, where they don't tell; MODEL=FOLDER for one of "
            "several. Repeat for several."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    kv_budget: Annotated[
        str,
        typer.Option(
            help="KV tokens that a sample attends to, or dense. It configures the embedded engine, and says how "
            "upstreams were configured. auto: 1024 for an embedded engine on CPUs, dense for upstreams."
        ),
    ] = "auto",
    hardware_name: HardwareName = None,
    effort: Annotated[
        list[str] | None,
        typer.Option(help="Samples' worth that a reasoning_effort buys, such as high=16; repeat for several."),
    ] = None,
    calibration: CalibrationOption = None,
    verifier: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT of a program that requests may have their samples scored by; repeat for several."),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Front-end processes that share the port, the engine and the ledger.", min=1)
    ] = 1,
    max_inflight_samples: Annotated[
        int, typer.Option(help="Samples that run at once on each upstream; further requests wait.", min=1)
    ] = 256,
    max_inflight_seconds: Annotated[
        float, typer.Option(help="Seconds that the hardware may need for what runs at once, by its eFLOPs.", min=0.001)
    ] = 600,
    max_queue: Annotated[int, typer.Option(help="Requests that wait; further ones are refused.", min=0)] = 1024,
    max_deadline: Annotated[
        float,
        typer.Option(
            help="Seconds after which a request with a budget gets its best answer so far, and another whose answer "
            "has not begun is given up.",
            min=0.001,
        ),
    ] = 3600,
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds that running requests have to finish after SIGTERM.", min=0)
    ] = 30,
    max_body_mb: Annotated[int, typer.Option(help="Largest request, in MiB.", min=1)] = 8,
    ledger: Annotated[
        str | None,
        typer.Option(
            envvar="KINETICS_LEDGER",
            help="Where tenants, keys and quotas are: a file name, or postgresql://USER@HOST/NAME. Every request to "
            "/v1 then needs a key. Default: no keys and no quotas.",
        ),
    ] = None,
    lease_s: Annotated[
        int, typer.Option(help="Seconds after which the ledger releases what a crashed front-end reserved.", min=3)
    ] = 60,
    log_level: Annotated[LogLevel, typer.Option(help="debug shows the engine's log too.")] = LogLevel.info,
    log_format: Annotated[LogFormat, typer.Option(help="json: one object a line.")] = LogFormat.text,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web page that may call this server from a browser, as https://HOST; repeat for several."),
    ] = None,
    allowed_media_host: Annotated[
        list[str] | None,
        typer.Option(help="Host that vLLM may fetch a client's image or sound from; repeat for several."),
    ] = None,
) -> None:
    """Serve OpenAI's API with budgets: from an embedded vLLM, or in front of servers that run already."""
    # Here and below, so that `--help` does not wait for what only one command needs.
    from kinetics_serve.observability import log
    from kinetics_serve.server import serve as server
    from kinetics_serve.server import workers as worker_processes
    from kinetics_serve.requests.admission import Limits
    from kinetics_serve.api.app import create_app
    from kinetics_serve.requests.services import DEFAULT_EFFORTS, Settings
    from kinetics_serve.engine import sparse
    from kinetics_serve.engine.embedded import bundled_model
    from kinetics_serve.engine.embedded.supervise import EngineError, Supervisor
    from kinetics_serve.engine.upstream import Patience

    if model is not None and upstream:
        raise fail("--model starts an embedded engine and --upstream uses running ones: give one of them")
    if upstream and engine_args:
        raise fail(f"arguments after -- are for the embedded engine, which --upstream replaces: {engine_args}")
    if upstream_api_key and not (upstream_api_key.isascii() and upstream_api_key.isprintable()):
        raise fail("--upstream-api-key has characters that a header can't carry")
    if any(isnan(seconds) for seconds in (first_token_timeout, token_timeout, max_deadline, drain_timeout)):
        raise fail("nan is no number of seconds")
    for url in upstream or ():
        if not url.startswith(("http://", "https://")):
            raise fail(f"--upstream takes a URL such as http://localhost:8001; given: {url!r}")
    log.configure(log_level, log_format.value)
    architectures = chosen_architectures(architecture or [])
    profile = chosen_hardware(hardware_name)
    worker = worker_processes.Worker.from_environment()
    servers = (len(upstream or ()) or 1) / workers
    settings = Settings(
        chosen_efforts(effort or [], DEFAULT_EFFORTS),
        max_body_mb << 20,
        loaded(calibration),
        chosen_verifiers(verifier or []),
        limits=Limits(
            ceil(servers * max_inflight_samples),
            servers * max_inflight_seconds * profile.flops,
            ceil(max_queue / workers),
        ),
        max_deadline_s=max_deadline,
        media_hosts=chosen_media_hosts(allowed_media_host or []),
        cors_origins=tuple(cors_origin or ()),
    )
    patience = Patience(first_token_timeout, token_timeout)
    tenants = opened_ledger(ledger, lease_s, told=worker is not None) if ledger is not None else None
    supervisor = None
    try:
        listener = server.listen(host, port) if worker is None else worker.listener()
        if upstream:
            tokens = chosen_kv_budget(kv_budget, None, [])
        else:
            name = bundled_model.NAME if model is None else Path(model).name if Path(model).exists() else model
            folder = str(bundled_model.bundled_model(_show_model_progress)) if model is None else model
            tokens = chosen_kv_budget(kv_budget, folder, engine_args or [])
            supervisor = Supervisor(
                folder,
                served_name=name,
                engine_args=[*(sparse.engine_args(tokens) if tokens else ()), *(engine_args or ())],
                on_progress=lambda line: errors.print(f"engine: {line}"),
            )
            architectures.setdefault(None, folder)
        if worker is None:
            errors.print(
                f"listening on http://{host}:{port}, eFLOPs for {profile.name} at {profile.intensity:.4g} per byte"
            )
            if workers > 1:
                with asyncio.Runner(loop_factory=server.new_event_loop) as runner:
                    runner.run(worker_processes.serve(workers, listener, supervisor, drain_timeout))
                return
        elif worker.engine is not None:
            upstream, supervisor = [worker.engine], None
        urls = [supervisor.url] if supervisor is not None else list(upstream or ())
        kv = sparse.kv_policy(tokens)
        fastapi = create_app(urls, profile.intensity, architectures, settings, kv, tenants, upstream_api_key, patience)
        with asyncio.Runner(loop_factory=server.new_event_loop) as runner:
            runner.run(server.serve(fastapi, listener, supervisor, drain_timeout, 0 if worker else None))
    except EngineError as error:
        for line in error.log_tail:
            errors.print(f"  {line}", markup=False, soft_wrap=True)
        raise fail(f"the engine could not start: {error}") from None
    except worker_processes.WorkersFailed as error:
        raise fail(error) from None
    except (OSError, bundled_model.BundledModelError) as error:
        raise fail(error) from None


def _show_model_progress(phase: str, fraction: float | None) -> None:
    if phase != "done":
        part = "" if fraction is None else f" {fraction:4.0%}"
        errors.print(f"bundled model: {phase}{part}", end="\r" if errors.is_terminal else "\n")


@app.command(name="hardware")
def show_hardware(
    measure: Annotated[bool, typer.Option(help="Measure the CPU again and keep that; on an idle machine.")] = False,
) -> None:
    """Show the hardware that eFLOPs are counted for."""
    profile = hardware.remeasured_cpu() if measure else chosen_hardware(None)
    output.print(f"{profile.name}: {profile.intensity:.1f} FLOPs per byte")
    rates = {"bf16": profile.flops, "fp8": profile.fp8, "fp4": profile.fp4}
    known = ", ".join(f"{rate / 1e12:.4g} in {dtype}" for dtype, rate in rates.items() if rate is not None)
    output.print(f"  TFLOP/s: {known}; {profile.bytes_per_second / 1e9:.4g} GB/s")
    output.print(f"  {profile.source}", soft_wrap=True)


@app.command()
def demo() -> None:
    """Ask the bundled model questions at several budgets, and show what each bought."""
    from kinetics_serve.commands.demo import main

    raise typer.Exit(main())


@app.command(name="calibrate-demo")
def calibrate_demo(
    out: Annotated[Path, typer.Option(help="Folder for traces, calibration and figures.")] = Path("calibrate-demo"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions of each task.")] = None,
) -> None:
    """Take the bundled model through eval, calibrate, frontier and plan on times tables, in some minutes."""
    from kinetics_serve.commands.calibrate_demo import main

    raise typer.Exit(main(out, limit))


app.command(name="eval")(evaluate)
for command in (cost, replay, calibrate, frontier, plan, ledger_commands.usage):
    app.command()(command)
app.add_typer(ledger_commands.tenants, name="tenants")
app.add_typer(ledger_commands.keys, name="keys")
