"""The servers at hand: which are up, what they serve, which to use."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from random import random, sample
from types import MappingProxyType
from typing import Any, Literal

from kinetics_serve import clock
from kinetics_serve.cost import HardwareProfile
from kinetics_serve.engine.errors import EngineRejected, EngineSilent, EngineUnavailable
from kinetics_serve.engine.info import EngineInfo
from kinetics_serve.engine.members import Members
from kinetics_serve.engine.routing import NEAR, choose, places, prefix_of
from kinetics_serve.engine.served_model import Prices, ServedModel
from kinetics_serve.engine.upstream import Upstream
from kinetics_serve.errors import KineticsError

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0

CHECKS_PER_S = 200
"""Of all servers, by one front-end: each takes some of its core, so many servers are checked less often."""

CHECKS_AT_ONCE = 64
"""More would be late because of each other, and servers that are up seem silent."""

FIRST_CHECK_S = 5.0
"""How long a server that starts waits for its first check of the engines: a little more than a silent one takes."""

REMINDER_S = 60.0
"""Seconds after which the log says again that a server is down."""

SILENCES_TO_LOSE = 3
"""Checks in a row without an answer after which a server is down. Fewer may be a want of CPU time, its or ours."""

LISTING_INTERVAL_S = 15.0
"""Seconds after which a healthy server is asked again what it serves: it may have got a LoRA or another model. Where
servers are checked less often, so is this."""


AUTO_MODEL = "kinetics-auto"
"""Served by no engine: the model of a request that leaves the choice of one to the calibration."""


class ModelNotFound(KineticsError):
    """No server that is up serves a model of that name."""

    status = 404
    code = "model_not_found"
    param = "model"


class Pool:
    """Upstreams and their health.

    architectures: folders or Hugging Face names by model, where that can't be read from the name that a server loaded
    it by; None stands for every other model.
    hardware: the upstreams'. kv_budget: what an administrator has stated of them, None being dense; they are believed
    where they say something else. embedded: they are ours, whose supervisor says why they are down. kv_element_bytes:
    of their KV caches, where neither they nor the checkpoints say it.
    """

    def __init__(
        self,
        upstreams: Iterable[Upstream],
        hardware: HardwareProfile,
        architectures: Mapping[str | None, str] = MappingProxyType({}),
        kv_budget: int | Literal["auto"] | None = "auto",
        on_health: Callable[[Upstream, bool], None] = lambda upstream, up: None,
        embedded: bool = False,
        kv_element_bytes: int | None = None,
    ) -> None:
        self.upstreams = list(upstreams)
        self.hardware = hardware
        self._kv_budget = kv_budget
        self._prices = Prices(hardware, architectures, kv_element_bytes)
        self._on_health = on_health
        self._down_level = logging.DEBUG if embedded else logging.WARNING
        self._models: dict[Upstream, dict[str, ServedModel]] = {}
        self._members = Members(self.upstreams)
        self._openings: dict[Upstream, int] = {}
        self._mentioned_at: dict[Upstream, float] = {}
        self._listed_at: dict[Upstream, float] = {}
        self._silences: dict[Upstream, int] = {}
        self._embedded = embedded
        self._ever_up = False
        self._unchecked = set(self.upstreams)
        self._all_checked = asyncio.Event()
        self._checking = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._rarity = max(1.0, len(self.upstreams) / CHECKS_PER_S * CHECK_INTERVAL_S)

    @property
    def ready(self) -> bool:
        return any(self._serving(upstream) for upstream in self.upstreams)

    def models(self) -> list[ServedModel]:
        """Every model that is served now, each once, in the upstreams' order."""
        firsts = {upstream for members in self._members for upstream in islice(filter(self._serving, members), 1)}
        found: dict[str, ServedModel] = {}
        for upstream in sorted(firsts, key=self._members.place):  # as if all were looked at
            for model in self._serving(upstream).values():
                found.setdefault(model.name, model)
        return list(found.values())

    def pick(
        self, model: str | None, body: Mapping[str, Any] | None = None, without: Collection[Upstream] = ()
    ) -> tuple[Upstream, ServedModel]:
        """The server for a request to a model, by default to the first model there is: see `routing.choose`.

        Of many servers it looks at some: those where the prompt's beginning may be cached, and as many by chance.
        body: the request, where it is one that generates. without: servers that it has been to already.
        Raises EngineUnavailable where no server is up, ModelNotFound where none that is up has the model.
        """
        if model is None:
            served = self.models()
            model = served[0].name if served else ""
        members = self._members.of(model)
        prefix = prefix_of(body) if body is not None and len(members) > 1 else None
        near = None
        holders: dict[str, Upstream] = {}
        if len(members) > 2 * NEAR:
            preferred = [members[place] for place in places(prefix, len(members))] if prefix is not None else []
            holders = self._usable(model, [*preferred, *sample(members, NEAR)], without)
            near = [each.url for each in preferred if each.url in holders]
        if not holders:  # there are few, or of many those are down
            holders = self._usable(model, members, without)
        if not holders:
            raise self._nobody(model)
        upstream = holders[choose({url: each.outstanding for url, each in holders.items()}, prefix, near)]
        return upstream, self._models[upstream][model]

    def _usable(self, model: str, members: Iterable[Upstream], without: Collection[Upstream]) -> dict[str, Upstream]:
        """Those that a request may go to, by URL."""
        now = clock.now()
        holders = {each.url: each for each in members if model in self._serving(each) and each not in without}
        usable = {url: each for url, each in holders.items() if not each.circuit.on_trial(now) or not each.outstanding}
        return usable or holders  # rather than refuse, more than one request goes to a server that is on trial

    def _nobody(self, model: str) -> KineticsError:
        """Why there is no server for a request."""
        served = self.models()
        if not served:
            return EngineUnavailable(self.why_not_ready())
        if any(each.name == model for each in served):
            return EngineUnavailable("no other engine is up at the moment")
        names = ", ".join(repr(each.name) for each in served)
        return ModelNotFound(f"the model {model!r} is not served here; there is {names}")

    def _serving(self, upstream: Upstream) -> dict[str, ServedModel]:
        """What it serves now, by name: nothing from when its circuit opens to the next check that it passes."""
        circuit = upstream.circuit
        checked = self._openings.get(upstream) == circuit.openings and not circuit.is_open(clock.now())
        return self._models.get(upstream, {}) if checked else {}

    def why_not_ready(self) -> str:
        """For clients: names no server."""
        if self._embedded and not self._ever_up:
            return "the engine is starting"
        if not self._ever_up:
            return "no engine has answered since this server started"
        if any(upstream.circuit.is_open(clock.now()) for upstream in self.upstreams):
            return "no engine is up at the moment: the last one failed requests, and rests before it is tried again"
        return "no engine is up at the moment"

    async def checked(self) -> None:
        """Returns when each upstream has been checked once by `watch`, whatever came out, or after FIRST_CHECK_S.

        Who answers before that refuses requests though the engines are up: and of several workers on one port, the
        others would have answered.
        """
        try:
            async with asyncio.timeout(FIRST_CHECK_S):
                await self._all_checked.wait()
        except TimeoutError:
            pass

    async def watch(self) -> None:
        """Checks every upstream's health until cancelled."""
        await asyncio.gather(*(self._watch(upstream) for upstream in self.upstreams))

    async def _watch(self, upstream: Upstream) -> None:
        share = random()  # of the first pause, so that all are not checked at the same moments
        while True:
            try:
                async with self._checking:
                    await self.check(upstream)
            except Exception:  # whatever a server answers, the watch goes on
                logger.exception("checking %s failed", upstream.url)
            self._unchecked.discard(upstream)
            if not self._unchecked:
                self._all_checked.set()
            await asyncio.sleep(CHECK_INTERVAL_S * self._rarity * share)
            share = 1.0

    async def check(self, upstream: Upstream) -> None:
        """Brings what is known of an upstream up to date."""
        openings = upstream.circuit.openings
        was_up = bool(self._serving(upstream))
        problem = await self._problem(upstream, was_up)
        up = problem is None
        if up and (not was_up or clock.now() >= self._listed_at[upstream] + self._rarity * LISTING_INTERVAL_S):
            try:
                info = await self._list(upstream)
                self._openings[upstream] = openings
            except (EngineUnavailable, EngineRejected, KeyError, ValueError) as error:
                problem = f"it answers, but not what it serves: {error}"
                up = was_up  # it goes on with what it served, and is asked again
                self._listed_at[upstream] = clock.now()
                if was_up:
                    logger.warning("%s: %s", upstream.url, problem)
        elif not up:
            self._models.pop(upstream, None)
        if up and not was_up:
            self._ever_up = True
            self._mentioned_at.pop(upstream, None)
            logger.info("%s is up: %s", upstream.url, info)
        elif not up and (was_up or clock.now() >= self._mentioned_at.get(upstream, float("-inf")) + REMINDER_S):
            self._mentioned_at[upstream] = clock.now()
            logger.log(self._down_level, "%s is down: %s", upstream.url, problem)
        self._on_health(upstream, up)

    async def _problem(self, upstream: Upstream, was_up: bool) -> str | None:
        """Why a server should get no requests; None where it may."""
        if upstream.circuit.is_open(clock.now()):
            return "it failed requests, and rests"
        try:
            await upstream.check_health()
        except EngineSilent as silent:
            self._silences[upstream] = self._silences.get(upstream, 0) + 1
            return None if was_up and self._silences[upstream] < SILENCES_TO_LOSE else str(silent)
        except EngineUnavailable as error:
            return str(error)
        self._silences[upstream] = 0
        return None

    async def _list(self, upstream: Upstream) -> EngineInfo:
        """Learns what an upstream serves, and how. Raises EngineUnavailable, EngineRejected, ValueError."""
        info, cards = await upstream.info(), await upstream.models()
        served = [await asyncio.to_thread(self._prices.served, card, info) for card in cards]
        found = {model.name: model for model in served}
        if not found:
            raise ValueError("it lists no model")
        known = self._models.get(upstream, {})
        if known and known.keys() != found.keys():
            logger.info("%s serves %s now", upstream.url, ", ".join(found))
        for model in served:
            before = known.get(model.name)
            if model.problem is not None and (before is None or before.problem != model.problem):
                logger.warning("no price for %s: %s", model.name, model.problem)
        if info not in {model.info for model in known.values()}:
            self._compare(upstream, info)
        self._models[upstream] = found
        self._members.listed(upstream, found)
        self._listed_at[upstream] = clock.now()
        return info

    def _compare(self, upstream: Upstream, info: EngineInfo) -> None:
        """Says where an administrator has stated something else than an engine says."""
        said = info.sparse.kv_budget if info.sparse is not None else None
        if self._kv_budget not in ("auto", said):
            message = "%s says that it attends to %s, and --kv-budget %s: requests are priced by what it says"
            logger.warning(message, upstream.url, _attended(said), _attended(self._kv_budget))


def _attended(kv_budget: int | str | None) -> str:
    return "everything" if kv_budget is None else f"{kv_budget} tokens"
