import pytest

from kinetics_serve.strategies.consensus import Consensus, weighted_votes
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.self_consistency import SelfConsistency
from kinetics_serve.strategies.state import Finish, Launch, Sample, State, Status, Wait
from kinetics_serve.strategies.votes import tally
from tests.arms import flat_arm


def price(max_tokens: int) -> int:
    return 100 + 10 * max_tokens


FULL = price(64)


def state(*samples: Sample, available: int, max_samples: int = 32) -> State:
    running = sum(sample.status is Status.RUNNING for sample in samples)
    return State(samples, available, 0, (flat_arm(max_samples),), running, tally(samples))


def ended(index: int, answer: str | None, score: float = 1.0) -> Sample:
    return Sample(index, 64, Status.FINISHED, 20, answer, score, empty=False)


def test_many_small_rivals_hold_up_consensus_where_the_runner_up_alone_would_not() -> None:
    answers = ["a"] * 6 + ["b", "c", "d", "e"]
    split = state(*(ended(i, answer) for i, answer in enumerate(answers)), available=20 * FULL)
    assert isinstance(MajorityVote(0.95).decide(split), Finish)
    assert isinstance(Consensus(0.95).decide(split), Launch)


def test_unanimous_votes_end_it_as_soon_as_with_two_answers() -> None:
    four = state(*(ended(i, "a") for i in range(4)), available=20 * FULL)
    finish = Consensus(0.95).decide(four)
    assert isinstance(finish, Finish)
    assert finish.reason == "consensus"
    assert finish.confidence == pytest.approx(31 / 32, abs=1e-3)


def test_confident_samples_outvote_as_many_doubtful_ones() -> None:
    voters = (("a", 10.0), ("b", 14.0), ("a", 10.2), ("b", 13.8))
    (answer, leader), (_, runner_up) = weighted_votes(voters)
    assert answer == "b"
    assert leader + runner_up == pytest.approx(4, abs=0.25)
    samples = [ended(index, answer, score) for index, (answer, score) in enumerate(voters)]
    assert Consensus(0.95, "confidence").conclude(state(*samples, available=0), "budget").winner == 1


def test_equally_confident_samples_have_equal_votes() -> None:
    assert weighted_votes((("a", 1.0), ("b", 1.0), ("a", 1.0), ("b", 1.0))) == [("a", 2.0), ("b", 2.0)]


def test_the_baseline_launches_once_and_waits_for_all() -> None:
    policy = SelfConsistency()
    assert policy.decide(state(available=8 * FULL)) == Launch(8, 64)
    running = [ended(0, "a"), *(Sample(i, 64) for i in range(1, 8))]
    assert policy.decide(state(*running, available=5 * FULL)) == Wait()
    done = [ended(i, "a") for i in range(8)]
    assert isinstance(policy.decide(state(*done, available=5 * FULL)), Finish)
