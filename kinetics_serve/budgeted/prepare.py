"""A budgeted request before it runs: checked, priced, planned. Serving and planning ask the same."""

from dataclasses import dataclass

from kinetics_serve.budgeted.arms import LiveArm, arms_of
from kinetics_serve.budgeted.options import KineticsOptions
from kinetics_serve.budgeted.reading import check_allowed
from kinetics_serve.budgeted.recorded import sampled_as_recorded
from kinetics_serve.budgeted.scoring import groups_of, scorer_of
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.planner.choose import ArmOf, choose_for_accuracy, choose_for_budget, fitting
from kinetics_serve.planner.plan import Plan, plan
from kinetics_serve.requests.access import check_model
from kinetics_serve.requests.errors import invalid
from kinetics_serve.requests.services import Services
from kinetics_serve.scorers.scorer import Scorer
from kinetics_serve.sources.completion import Completion
from kinetics_serve.sources.grouped import MeaningGroups
from kinetics_serve.strategies.spec import AUTO


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request may run on and how it is scored. Nothing is spent yet."""

    options: KineticsOptions
    arms: tuple[LiveArm, ...]
    """The first is what the request asks for."""
    scorer: Scorer | None
    groups: MeaningGroups | None
    """Of free answers, by what they mean."""
    calibration: Calibration | None

    @property
    def arm_of(self) -> ArmOf[LiveArm]:
        return fitting({arm.key: arm for arm in self.arms})

    def plan(self) -> Plan[LiveArm]:
        """What the request's budget buys.

        A calibration decides for the strategy `auto` and for a budget by accuracy, where it knows one of the arms. A
        budget in samples or tokens is counted at the dearest of them. Raises BudgetTooSmall, and AccuracyOutOfReach
        for a budget by accuracy.
        """
        options, first = self.options, self.arms[0]
        assert options.budget is not None
        free = options.strategy == AUTO and not first.prompt.greedy
        if options.budget.accuracy is not None:
            return self._plan_for_accuracy(options.budget.accuracy, free)
        budget = options.budget.budget()
        if self.calibration is not None and free:
            eflops = max(budget.eflops(arm) for arm in self.arms)
            choice = choose_for_budget(self.calibration, eflops, self.arm_of)
            if choice is not None:
                return sampled_as_recorded(Plan.of(choice, eflops), self.calibration)
        return plan(
            options.strategy,
            budget,
            first,
            stop_confidence=options.stop_confidence,
            options=options.strategy_options,
            greedy=first.prompt.greedy,
        )

    def _plan_for_accuracy(self, accuracy: float, free: bool) -> Plan[LiveArm]:
        if self.calibration is None:
            raise invalid(
                "a budget by accuracy needs a calibration, and this server has none: state eflops, tokens or samples",
                "kinetics.budget.accuracy",
            )
        if not free:
            raise invalid(
                'a budget by accuracy buys what the calibration measured: leave the strategy at "auto" and the '
                "temperature above 0",
                "kinetics.strategy" if self.options.strategy != AUTO else "temperature",
            )
        cheapest = choose_for_accuracy(self.calibration, accuracy, self.arm_of)
        return sampled_as_recorded(Plan.of(cheapest, cheapest.budget), self.calibration)


async def prepare(
    body: Json, options: KineticsOptions, completion: type[Completion], tenant: Tenant | None, services: Services
) -> Prepared:
    """Raises KineticsError."""
    check_allowed(options.answer, services.settings.allow_code)
    for stated in (options.scorer, options.answer.meaning):
        judge = getattr(stated, "model", None)
        if judge is not None:
            check_model(tenant, judge)
    arms = await arms_of(body, options, completion, services, lambda name: tenant is None or tenant.may_use(name))
    scorer = await scorer_of(options, arms[0].prompt, arms[0].route.served, services)
    groups = await groups_of(options, arms[0].prompt, arms[0].route.served, services)
    priced = tuple(arm.with_extra(options, scorer, groups) for arm in arms)
    return Prepared(options, priced, scorer, groups, services.settings.calibration)
