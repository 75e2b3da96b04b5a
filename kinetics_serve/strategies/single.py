"""One sample, as long as the budget allows."""

from dataclasses import dataclass

from kinetics_serve.strategies.moves import affordable_launch, best
from kinetics_serve.strategies.spec import StrategySpec
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait


@dataclass(frozen=True, slots=True)
class Single:
    name: str = "single"

    def decide(self, state: State) -> Action:
        if state.running:
            return Wait()
        if not state.samples:
            launch = affordable_launch(state, 1)
            if launch is not None:
                return launch
        return self.conclude(state, "single")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        return Finish(best(state.samples), reason)


def _once(worth: int) -> list[dict[str, object]]:
    return [{}] if worth == 1 else []


SPEC = StrategySpec("single", lambda options: Single(), trials=_once)
