from kinetics_serve.strategies.cascade import Cascade
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.state import Finish, Launch, Sample, State, Status, Wait
from kinetics_serve.strategies.votes import tally
from tests.arms import flat_arm

ARMS = (flat_arm(4), flat_arm(3, 32, dearness=10))
POLICY = Cascade((MajorityVote(0.95), MajorityVote(0.95)), 0.9)


def state(*samples: Sample, available: int = 10**6) -> State:
    running = sum(sample.status is Status.RUNNING for sample in samples)
    return State(samples, available, 0, ARMS, running, tally(samples))


def ended(index: int, answer: str | None, arm: int = 0) -> Sample:
    return Sample(index, 64, Status.FINISHED, 20, answer, 1.0, empty=False, arm=arm)


def test_the_cheap_model_is_asked_first_and_has_the_last_word_where_it_agrees() -> None:
    assert POLICY.decide(state()) == Launch(4, 64)
    assert POLICY.decide(state(*(ended(i, "a") for i in range(4)))) == Finish(0, "consensus", 31 / 32)


def test_disagreement_asks_the_dearer_model_whose_answer_counts() -> None:
    split = [ended(0, "a"), ended(1, "a"), ended(2, "b"), ended(3, "c")]
    assert POLICY.decide(state(*split)) == Launch(3, 32, arm=1)
    assert POLICY.decide(state(*split, Sample(4, 32, arm=1))) == Launch(2, 32, arm=1)
    assert POLICY.decide(state(*split, *(Sample(4 + i, 32, arm=1) for i in range(3)))) == Wait()
    decided = [*split, *(ended(4 + i, "b", arm=1) for i in range(3))]
    assert POLICY.decide(state(*decided)) == Finish(4, "max_samples", 15 / 16)


def test_the_cheap_answer_stands_where_the_dear_model_has_none_or_is_not_affordable() -> None:
    split = [ended(0, "a"), ended(1, "a"), ended(2, "b"), ended(3, "c")]
    broke = POLICY.decide(state(*split, available=ARMS[1].worst_case(16) - 1))
    assert isinstance(broke, Finish)
    assert broke.winner == 0
    silent = [Sample(4 + i, 32, Status.TRUNCATED, 32, None, 1.0, empty=False, arm=1) for i in range(3)]
    answered = POLICY.decide(state(*split, *silent))
    assert isinstance(answered, Finish)
    assert answered.winner == 0
