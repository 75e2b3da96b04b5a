"""Every option of a server: its name, type, default and meaning. The command line, the variables `KINETICS_…`, the keys
of `kinetics.yaml` and the documents' table are made from it.
"""

import re
import shlex
from collections.abc import Mapping
from math import isinf, isnan
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX = "KINETICS_"

SHORTEST_ADMIN_KEY = 16
"""Characters. The key opens everybody's quota, and nothing limits how often somebody guesses."""

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@\\]+")
"""Browser extensions and desktop programs have schemes of their own."""

KEYS = ("upstream_api_key", "admin_api_key")
"""Secrets without which something is open, so that an empty one never stands for none."""

EFFORTS = {"minimal": 0.5, "low": 1.0, "medium": 4.0, "high": 16.0, "xhigh": 32.0, "max": 64.0}


def _listed(stated: object) -> object:
    """A list, as a variable ("a,b"), the command line or a file ("NAME: VALUE" for NAME=VALUE) states it."""
    if isinstance(stated, Mapping):
        return [f"{name}={value}" for name, value in stated.items()]
    return [part.strip() for part in stated.split(",")] if isinstance(stated, str) else stated


def _number(stated: float) -> float:
    if isnan(stated):
        raise ValueError("nan is no number of seconds")
    return stated


def _efforts(stated: object) -> dict[str, float]:
    efforts = dict(EFFORTS)
    for entry in _strings(_listed(stated)):
        name, _, samples = entry.partition("=")
        try:
            efforts[name] = float(samples)
        except ValueError:
            raise ValueError("expected NAME=SAMPLES, such as high=16") from None
        if not efforts[name] > 0 or isinf(efforts[name]):
            raise ValueError(f"{name} must buy more than 0 samples")
    return efforts


def _strings(stated: object) -> list[str]:
    if not isinstance(stated, list):
        raise ValueError("expected a list")
    return [str(entry) for entry in stated]


def _words(stated: object) -> object:
    return shlex.split(stated) if isinstance(stated, str) else stated


Listed = Annotated[list[str], NoDecode, BeforeValidator(_listed)]
Seconds = Annotated[float, Field(gt=0), AfterValidator(_number)]


class Options(BaseSettings):
    """What an administrator sets. Fields are checked one by one, and against each other, when they are read."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        dotenv_filtering="only_existing",
        use_attribute_docstrings=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    model: str | None = None
    """Hugging Face name or folder for the embedded engine. Default: a bundled one."""
    engine_args: Annotated[list[str], NoDecode, BeforeValidator(_words)] = []
    """Further arguments for the embedded vLLM server; on the command line after --."""
    start_timeout: Seconds = 900
    """Seconds that the embedded engine may take to start."""
    upstream: Listed = []
    """URL of a vLLM server that runs already; repeat for several."""
    upstream_api_key: SecretStr | None = None
    """What the upstreams know this server by. Better not on the command line, which the process list shows."""
    first_token_timeout: Seconds = 600
    """Seconds that an engine may take to a stream's first token."""
    token_timeout: Seconds = 300
    """Seconds that an engine may take from one token to the next."""
    architecture: Listed = []
    """Folder or Hugging Face name of the upstreams' model, where they don't tell; MODEL=FOLDER for one of several.
    Repeat for several."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    kv_budget: str = "auto"
    """KV tokens that a sample attends to on the embedded engine, or dense. auto: 1024 on CPUs, dense elsewhere.
    Upstreams say themselves how they attend; the log warns of one that says something else than is stated here."""
    hardware: str | None = None
    """What eFLOPs are counted for: a GPU such as b200, or cpu. Default: what is here."""
    price_per_gpu_hour: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """Dollars that an hour of one device costs: bills and plans then state money beside eFLOPs."""
    effort: Annotated[dict[str, float], NoDecode, BeforeValidator(_efforts)] = EFFORTS
    """Samples' worth that a reasoning_effort buys, such as high=16; repeat for several."""
    calibration: Path | None = None
    """What `calibrate` wrote: plans follow it."""
    verifier: Listed = []
    """HOST:PORT of a program that requests may have their samples scored by; repeat for several."""
    allow_code: bool = False
    """Run the programs that samples answer with, for requests whose answers are code. Whoever may send requests can
    then run programs as this server's user: only in a container."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Front-end processes that share the port, the engine and the ledger."""
    max_inflight_samples: Annotated[int, Field(ge=1)] = 256
    """Samples that run at once on each upstream; further requests wait."""
    max_inflight_seconds: Seconds = 600
    """Seconds that the hardware may need for what runs at once, by its eFLOPs."""
    max_queue: Annotated[int, Field(ge=0)] = 1024
    """Requests that wait; further ones are refused."""
    max_deadline: Seconds = 3600
    """Seconds after which a request with a budget gets its best answer so far, and another is given up."""
    drain_timeout: Annotated[float, Field(ge=0), AfterValidator(_number)] = 30
    """Seconds that running requests have to finish after SIGTERM."""
    keep_alive: Annotated[float, Field(ge=0), AfterValidator(_number)] = 5
    """Seconds of silence after which a stream with a budget sends a comment, which keeps proxies from closing it; 0:
    never."""
    max_body_mb: Annotated[int, Field(ge=1)] = 8
    """Largest request, in MiB."""
    ledger: SecretStr | None = None
    """Where tenants, keys and quotas are: a file name, or postgresql://USER@HOST/NAME. Every request to /v1 then needs
    a key. Default: no keys and no quotas."""
    admin_api_key: SecretStr | None = None
    """What the ledger's administrator shows at /admin and /v1/kinetics/admin, where tenants, keys and quotas are set:
    at least 16 characters, such as `openssl rand -hex 32` makes. Better not on the command line. Default: neither is
    there."""
    ready_needs_ledger: bool = False
    """/ready is 503 also where the ledger's database does not answer. With a database that all front-ends share, an
    outage then takes all of them out of the load balancer."""
    outbox: Path | None = None
    """File on a local disk where bills are kept until the ledger has booked them. Default: beside a SQLite ledger, as
    FILE-outbox; with PostgreSQL in ~/.local/state/kinetics-serve."""
    lease_s: Annotated[int, Field(ge=3)] = 60
    """Seconds after which the ledger releases what a crashed front-end reserved."""
    log_level: Literal["debug", "info", "warning"] = "info"
    """debug shows the engine's log too."""
    log_format: Literal["text", "json"] = "text"
    """json: one object a line."""
    cors_origin: Listed = []
    """Web page that may call this server from a browser, as https://HOST; repeat for several."""
    allowed_media_host: Listed = []
    """Host that vLLM may fetch a client's image or sound from; repeat for several."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is given: `sources.read` reads the others, and remembers where each value came from."""
        return (init_settings,)

    @field_validator("upstream")
    @classmethod
    def _urls(cls, stated: list[str]) -> list[str]:
        from kinetics_serve.engine.url import server_url

        urls = [server_url(url, "--upstream-api-key (KINETICS_UPSTREAM_API_KEY)") for url in stated]
        for place, url in enumerate(urls):
            if url in urls[:place]:
                raise ValueError(f"expected each server once, since it counts as often as it is stated; given: {url!r}")
        return urls

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, stated: list[str]) -> list[str]:
        for origin in stated:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(
                    "expected a web page's origin as its browser sends it, such as https://app.example or "
                    f"http://localhost:3000, in lower case and with nothing after it; given: {origin!r}"
                )
        return stated

    @field_validator(*KEYS)
    @classmethod
    def _fits_a_header(cls, stated: SecretStr | None) -> SecretStr | None:
        if stated is not None and not stated.get_secret_value():
            raise ValueError("it is empty")
        if stated and not (stated.get_secret_value().isascii() and stated.get_secret_value().isprintable()):
            raise ValueError("it has characters that a header can't carry")
        return stated

    @field_validator("admin_api_key")
    @classmethod
    def _hard_to_guess(cls, stated: SecretStr | None) -> SecretStr | None:
        if stated is not None and len(stated.get_secret_value()) < SHORTEST_ADMIN_KEY:
            raise ValueError(
                f"it has {len(stated.get_secret_value())} characters, and needs at least {SHORTEST_ADMIN_KEY}: "
                "`openssl rand -hex 32` makes one"
            )
        return stated

    @field_validator("kv_budget", mode="before")
    @classmethod
    def _kv_tokens(cls, stated: object) -> str:
        from kinetics_serve.engine.sparse import MIN_KV_BUDGET

        text = str(stated)
        if text not in ("auto", "dense") and (not text.isdecimal() or int(text) < MIN_KV_BUDGET):
            raise ValueError(f"expected auto, dense or a number of tokens from {MIN_KV_BUDGET}; given: {text!r}")
        return text

    @field_validator("verifier")
    @classmethod
    def _hosts_with_ports(cls, stated: list[str]) -> list[str]:
        from kinetics_serve.scorers.verifier import host_of

        for host in stated:
            try:
                complete = host_of(f"http://{host}") == host.lower()
            except ValueError:
                complete = False
            if not complete:
                raise ValueError(f"expected HOST:PORT, such as verifier.example:443; given: {host!r}")
        return [host.lower() for host in stated]

    @field_validator("allowed_media_host")
    @classmethod
    def _media_hosts(cls, stated: list[str]) -> list[str]:
        from kinetics_serve.requests.media import media_host

        return list(map(media_host, stated))

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.model is not None and self.upstream:
            raise ValueError("--model starts an embedded engine and --upstream uses running ones: give one of them")
        if self.upstream and self.engine_args:
            raise ValueError(
                f"arguments after -- are for the embedded engine, which --upstream replaces: {self.engine_args}"
            )
        if self.admin_api_key is not None and self.ledger is None:
            raise ValueError("--admin-api-key is for the administrator of a ledger: state --ledger too, or drop it")
        return self


def secret(name: str) -> bool:
    """Whether an option's value is shown to nobody, and may be read from a file of its own."""
    return Options.model_fields[name].annotation == SecretStr | None


def listed(name: str) -> bool:
    """Whether an option is repeated on the command line."""
    return NoDecode in Options.model_fields[name].metadata


def meaning(name: str) -> str:
    return " ".join((Options.model_fields[name].description or "").split())
