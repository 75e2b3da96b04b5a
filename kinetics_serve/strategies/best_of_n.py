"""As many samples as the budget buys, and the one with the highest score."""

from dataclasses import dataclass

from kinetics_serve.strategies.moves import affordable_launch, best
from kinetics_serve.strategies.spec import StrategySpec, one_trial
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait


@dataclass(frozen=True, slots=True)
class BestOfN:
    name: str = "best_of_n"

    def decide(self, state: State) -> Action:
        launch = affordable_launch(state, state.samples_left)
        if launch is not None:
            return launch
        if state.running:
            return Wait()
        return self.conclude(state, "budget" if state.samples_left > 0 else "max_samples")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        return Finish(best(state.samples), reason)


SPEC = StrategySpec("best_of_n", lambda options: BestOfN(), by_score=True, trials=one_trial)
