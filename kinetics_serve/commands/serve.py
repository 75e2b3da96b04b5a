"""`kinetics-serve serve`: the server, with an embedded engine or in front of running ones."""

import asyncio
import socket
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kinetics_serve.commands.ledger import has_keys, run
from kinetics_serve.commands.options import load_calibration
from kinetics_serve.commands.progress import StartProgress, ready_line, show_model_progress
from kinetics_serve.commands.settings.command_line import taking_options
from kinetics_serve.commands.settings.options import Options
from kinetics_serve.commands.settings.sources import Settings
from kinetics_serve.commands.terminal import chosen_hardware, errors, fail

if TYPE_CHECKING:  # here and below, so that `--help` does not wait for what only one command needs
    from fastapi import FastAPI

    from kinetics_serve.cost.hardware_profile import HardwareProfile
    from kinetics_serve.engine.embedded.supervise import Supervisor
    from kinetics_serve.ledger.ledger import Ledger
    from kinetics_serve.ledger.outbox import Outbox
    from kinetics_serve.requests.services import Settings as FrontEndSettings
    from kinetics_serve.server.workers import Worker


MEMORY_PER_HELD_BYTE = 8
"""Of a request's body. It takes almost three times its length while it runs or waits, and the rest needs memory too."""


@taking_options
def serve(settings: Settings) -> None:
    """Serve OpenAI's API with budgets: from an embedded vLLM, or in front of servers that run already."""
    from kinetics_serve.engine.embedded.bundled_model import BundledModelError
    from kinetics_serve.engine.embedded.diagnose import EngineError
    from kinetics_serve.observability import log
    from kinetics_serve.registry import BrokenPart
    from kinetics_serve.server.workers import Worker, WorkersFailed

    options = settings.options
    log.configure(options.log_level, options.log_format)
    if options.upstream and options.hardware is None:
        raise fail(
            "--upstream uses servers whose hardware is not seen from here: state what eFLOPs are counted for with "
            "--hardware, such as h100, or cpu where they run on CPUs like this one"
        )
    profile = replace(chosen_hardware(options.hardware), dollars_per_hour=options.price_per_gpu_hour)
    worker = Worker.from_environment()
    front_end = front_end_settings(options, profile)
    ledger = opened_ledger(options, told=worker is not None)
    outbox = checked_outbox(options, ledger)
    try:
        listener = listening(options, profile) if worker is None else worker.listener()
        engine = embedded_engine(options) if not options.upstream else running_engine(options)
        if worker is None and options.workers > 1:
            run_workers(options, listener, engine)
        else:
            run_front_end(options, listener, engine, front_end, profile, ledger, outbox, worker)
    except EngineError as error:
        for line in error.log_tail:
            errors.print(f"  {line}", markup=False, soft_wrap=True)
        raise fail(f"the engine could not start: {error}") from None
    except (OSError, BundledModelError, BrokenPart, WorkersFailed) as error:
        raise fail(error) from None


# ----- settings of the parts -----


def front_end_settings(options: Options, profile: "HardwareProfile") -> "FrontEndSettings":
    """What the routes are told. Each of several workers has an equal part of the limits."""
    from kinetics_serve.container import memory_bytes
    from kinetics_serve.requests.admission import Capacity
    from kinetics_serve.requests.services import Settings as FrontEndSettings

    servers = (len(options.upstream) or 1) / options.workers
    return FrontEndSettings(
        efforts=options.effort,
        keep_alive_s=options.keep_alive,
        max_body_bytes=options.max_body_mb << 20,
        max_held_bytes=memory_bytes() // MEMORY_PER_HELD_BYTE // options.workers,
        calibration=load_calibration(options.calibration, profile) if options.calibration is not None else None,
        allow_code=options.allow_code,
        verifier_hosts=frozenset(options.verifier),
        capacity=Capacity(
            samples=ceil(servers * options.max_inflight_samples),
            eflops=servers * options.max_inflight_seconds * profile.flops,
            waiting=ceil(options.max_queue / options.workers),
        ),
        ready_needs_ledger=options.ready_needs_ledger,
        max_deadline_s=options.max_deadline,
        media_hosts=frozenset(options.allowed_media_host),
        admin_api_key=options.admin_api_key.get_secret_value() if options.admin_api_key is not None else None,
        cors_origins=tuple(options.cors_origin),
    )


def chosen_architectures(stated: list[str]) -> dict[str | None, str]:
    """Folders or names by model; None stands for every other model."""
    found: dict[str | None, str] = {}
    for entry in stated:
        model, equals, folder = entry.rpartition("=")
        found[model if equals else None] = folder
    return found


# ----- checks -----


def stated_kv_budget(options: Options) -> "int | Literal['auto'] | None":
    """KV tokens that the engines attend to, by --kv-budget; None is dense."""
    if options.kv_budget == "auto":
        return "auto"
    return None if options.kv_budget == "dense" else int(options.kv_budget)


def embedded_kv_budget(options: Options, model: str) -> int | None:
    """KV tokens that an embedded engine of `model` is started with; None is dense."""
    from kinetics_serve.engine.sparse import default_kv_budget, plugin_installed, speculates

    kv_budget = stated_kv_budget(options)
    if kv_budget == "auto":
        return default_kv_budget(model, options.engine_args)
    if kv_budget is None:
        return None
    if any(argument.startswith("--additional-config") for argument in options.engine_args):
        raise fail("--kv-budget sets the engine's --additional-config: put one of them into the other")
    if speculates(options.engine_args):
        raise fail("--kv-budget has no effect on steps that check the drafts of speculative decoding: drop one of them")
    if not plugin_installed():
        raise fail("--kv-budget needs the vLLM plugin, which this installation lacks: install kinetics-serve again")
    return kv_budget


def opened_ledger(options: Options, told: bool) -> "Ledger | None":
    """The ledger, its schema up to date. told: the administrator knows already whether it has keys."""
    if options.ledger is None:
        return None
    from kinetics_serve.ledger.database import Database
    from kinetics_serve.ledger.ledger import Ledger

    url = options.ledger.get_secret_value()
    if not run(url, has_keys, create=True) and not told:
        errors.print("the ledger has no key yet, so every request will be refused: kinetics-serve keys create TENANT")
    database = Database(url)
    database.hold()
    return Ledger(database, options.lease_s)


def checked_outbox(options: Options, ledger: "Ledger | None") -> "Outbox | None":
    """Where bills are kept until the ledger has them. Exits where that can't be written, or keeps another ledger's."""
    if ledger is None or options.ledger is None:
        return None
    from kinetics_serve.ledger.errors import LedgerMisuse
    from kinetics_serve.ledger.ledger import Ledger
    from kinetics_serve.ledger.outbox import Outbox, default_path
    from kinetics_serve.ledger.outbox_file import OutboxFile

    identity = run(options.ledger.get_secret_value(), Ledger.identity)
    file = OutboxFile(options.outbox or default_path(ledger.database.url), identity)
    try:
        file.open()
    except LedgerMisuse as error:
        raise fail(error) from None
    file.close()
    return Outbox(file)


# ----- starting -----


@dataclass(frozen=True, slots=True)
class Engine:
    """What generates: servers that run at `urls`, or the one that `supervisor` starts."""

    architectures: dict[str | None, str]
    """Folders or names of its models; None stands for every other model."""
    urls: tuple[str, ...] = ()
    supervisor: "Supervisor | None" = None

    def of_worker(self, worker: "Worker | None") -> "Engine":
        """As a worker sees it, whose parent has started it."""
        if worker is None or worker.engine is None:
            return self
        return Engine(self.architectures, (worker.engine,))


def running_engine(options: Options) -> Engine:
    return Engine(chosen_architectures(options.architecture), tuple(options.upstream))


def embedded_engine(options: Options) -> Engine:
    """Starts nothing yet, though it may fetch the bundled model. Raises BundledModelError."""
    from kinetics_serve.engine import sparse
    from kinetics_serve.engine.embedded import bundled_model
    from kinetics_serve.engine.embedded.supervise import Supervisor

    if options.model is None:
        name, folder = bundled_model.NAME, str(bundled_model.bundled_model(show_model_progress))
    else:
        name, folder = Path(options.model).name if Path(options.model).exists() else options.model, options.model
    kv_budget = embedded_kv_budget(options, folder)
    supervisor = Supervisor(
        folder,
        served_name=name,
        engine_args=[*(sparse.engine_args(kv_budget) if kv_budget else ()), *options.engine_args],
        on_progress=StartProgress(),
        start_timeout_s=options.start_timeout,
    )
    architectures = chosen_architectures(options.architecture)
    architectures.setdefault(None, folder)
    return Engine(architectures, supervisor=supervisor)


def listening(options: Options, profile: "HardwareProfile") -> socket.socket:
    from kinetics_serve.server import serve as server

    listener = server.listen(options.host, options.port)
    errors.print(
        f"listening on http://{options.host}:{options.port}, eFLOPs for {profile.name} at "
        f"{profile.intensity:.4g} per byte"
    )
    return listener


def run_workers(options: Options, listener: socket.socket, engine: Engine) -> None:
    """Until told to stop. Raises EngineError and WorkersFailed."""
    from kinetics_serve.server import serve as server
    from kinetics_serve.server import workers

    serving = workers.serve(options.workers, listener, engine.supervisor, options.drain_timeout, ready_line(options))
    with asyncio.Runner(loop_factory=server.new_event_loop) as runner:
        runner.run(serving)


def run_front_end(
    options: Options,
    listener: socket.socket,
    engine: Engine,
    settings: "FrontEndSettings",
    profile: "HardwareProfile",
    ledger: "Ledger | None",
    outbox: "Outbox | None",
    worker: "Worker | None",
) -> None:
    """Until told to stop. Raises EngineError."""
    from kinetics_serve.server import serve as server

    engine = engine.of_worker(worker)
    app = application(options, engine, settings, profile, ledger, outbox)
    serving = server.serve(
        app,
        listener,
        engine.supervisor,
        options.drain_timeout,
        parent=None if worker is None else 0,
        announced=None if worker is not None else ready_line(options),
    )
    with asyncio.Runner(loop_factory=server.new_event_loop) as runner:
        runner.run(serving)


def application(
    options: Options,
    engine: Engine,
    settings: "FrontEndSettings",
    profile: "HardwareProfile",
    ledger: "Ledger | None",
    outbox: "Outbox | None",
) -> "FastAPI":
    from kinetics_serve.api.app import create_app
    from kinetics_serve.engine.embedded.launch import kv_element_bytes
    from kinetics_serve.engine.upstream import Patience

    return create_app(
        [engine.supervisor.url] if engine.supervisor is not None else engine.urls,
        profile,
        engine.architectures,
        settings,
        stated_kv_budget(options),
        ledger,
        outbox,
        options.upstream_api_key.get_secret_value() if options.upstream_api_key is not None else None,
        Patience(options.first_token_timeout, options.token_timeout),
        embedded=not options.upstream,
        kv_element_bytes=kv_element_bytes(options.engine_args) if not options.upstream else None,
    )
