import pytest

from kinetics_serve.strategies.auto import auto
from kinetics_serve.strategies.best_of_n import BestOfN
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.race import Race
from kinetics_serve.strategies.single import Single
from kinetics_serve.strategies.state import Finish, Launch, Policy, Sample, State, Status, Wait
from kinetics_serve.strategies.votes import tally
from tests.arms import flat_arm


def price(max_tokens: int) -> int:
    """A prompt worth 100 eFLOPs, and ten a token."""
    return 100 + 10 * max_tokens


def state(*samples: Sample, available: int, recoverable: int = 0, max_samples: int = 32) -> State:
    running = sum(sample.status is Status.RUNNING for sample in samples)
    return State(samples, available, recoverable, (flat_arm(max_samples),), running, tally(samples))


def ended(index: int, answer: str | None, score: float = 1.0, tokens: int = 20) -> Sample:
    return Sample(index, 64, Status.FINISHED, tokens, answer, score, empty=False)


def running(index: int) -> Sample:
    return Sample(index, 64)


FULL = price(64)
ALL = [Single(), BestOfN(), MajorityVote(), Race()]


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
def test_a_small_budget_buys_one_shorter_sample(policy: Policy) -> None:
    assert policy.decide(state(available=price(20))) == Launch(1, 20)


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
def test_text_beats_no_text_and_an_answer_beats_none(policy: Policy) -> None:
    empty = ended(0, None, score=9.0)._replace(empty=True)
    unparsable, cut_off = ended(1, None, score=8.0), ended(2, None, score=9.0)._replace(status=Status.TRUNCATED)
    answered = ended(3, "42", score=0.1)
    for samples, winner in (
        ((empty,), None),
        ((empty, cut_off), 2),
        ((empty, cut_off, unparsable), 1),
        ((empty, cut_off, unparsable, answered), 3),
    ):
        assert policy.conclude(state(*samples, available=0), "budget").winner == winner


def test_single_launches_one_sample_whatever_is_left() -> None:
    assert Single().decide(state(available=100 * FULL)) == Launch(1, 64)
    assert Single().decide(state(running(0), available=99 * FULL)) == Wait()
    assert Single().decide(state(ended(0, "a"), available=99 * FULL)) == Finish(0, "single")


def test_best_of_n_spends_the_budget_and_takes_the_highest_score() -> None:
    policy = BestOfN()
    assert policy.decide(state(available=5 * FULL)) == Launch(5, 64)
    assert policy.decide(state(available=5 * FULL, max_samples=3)) == Launch(3, 64)
    samples = (ended(0, "a", 0.2), ended(1, "b", 0.9), ended(2, "c", 0.5))
    assert policy.decide(state(*samples, available=FULL - 1 - 200)) == Launch(1, 43)
    assert policy.decide(state(*samples, available=200)) == Finish(1, "budget")
    assert policy.decide(state(*samples, available=9 * FULL, max_samples=3)) == Finish(1, "max_samples")


def test_a_leftover_too_short_for_any_answer_seen_is_not_spent() -> None:
    seen = [ended(i, "a", tokens=60) for i in range(2)]
    assert isinstance(BestOfN().decide(state(*seen, available=price(50))), Finish)


def test_voting_buys_no_more_votes_than_could_settle_it() -> None:
    policy = MajorityVote(0.95)
    assert policy.decide(state(available=50 * FULL)) == Launch(4, 64)  # 4 of 4: 31/32
    assert policy.decide(state(*(running(i) for i in range(4)), available=46 * FULL)) == Wait()


def test_voting_stops_at_consensus() -> None:
    samples = [ended(i, "a", score=float(i)) for i in range(4)]
    assert MajorityVote(0.95).decide(state(*samples, available=46 * FULL)) == Finish(3, "consensus", 31 / 32)


def test_a_split_vote_buys_just_the_missing_votes() -> None:
    samples = [ended(0, "a"), ended(1, "a"), ended(2, "a"), ended(3, "b")]
    action = MajorityVote(0.95).decide(state(*samples, available=46 * FULL))
    assert action == Launch(3, 64)  # 6 to 1: 247/256


def test_a_race_launches_all_it_can_and_ends_with_the_first_that_agree() -> None:
    race = Race(0.8)
    assert race.decide(state(available=8 * FULL)) == Launch(8, 64)
    late = [running(i) for i in range(2, 8)]
    first, second = ended(0, "a", score=1.0), ended(1, "a", score=2.0)
    assert race.decide(state(first, running(1), *late, available=0)) == Wait()
    assert race.decide(state(first, second, *late, available=0)) == Finish(1, "consensus", 0.875)
    assert race.decide(state(first, ended(1, "b"), *late, available=2 * FULL)) == Wait()


def test_a_race_may_be_decided_by_so_many_votes_that_agree_or_not() -> None:
    race = Race(0.95, deciding_votes=3)
    samples = [ended(0, "a"), ended(1, "b", score=2.0), ended(2, None)]
    assert race.decide(state(*samples, running(3), running(4), available=0)) == Wait()
    assert race.decide(state(*samples, ended(3, "c"), running(4), available=0)) == Finish(1, "max_samples", 0.5)


def test_a_race_that_nobody_won_goes_another_round() -> None:
    samples = [ended(0, "a"), ended(1, "b"), Sample(2, 64, Status.TRUNCATED, 64, None, 1.0, empty=False)]
    assert Race().decide(state(*samples, running(3), available=2 * FULL)) == Wait()
    assert Race().decide(state(*samples, available=2 * FULL)) == Launch(2, 64)
    assert Race().decide(state(*samples, available=0)) == Finish(0, "budget", 0.5)
    assert Race().decide(state(*samples, available=2 * FULL, max_samples=3)) == Finish(0, "max_samples", 0.5)


def test_voting_stops_when_what_is_left_cannot_overturn_the_leader() -> None:
    samples = [*(ended(i, "a") for i in range(3)), ended(3, "b"), running(4)]
    assert isinstance(MajorityVote(1.0).decide(state(*samples, available=0, recoverable=0)), Finish)
    action = MajorityVote(1.0).decide(state(*samples, available=0, recoverable=5 * FULL))
    assert action == Wait()  # the running sample may give back enough for five more


def test_voting_says_whether_the_budget_or_max_samples_ended_it() -> None:
    samples = [ended(0, "a"), ended(1, "b")]
    assert MajorityVote().decide(state(*samples, available=0)) == Finish(0, "budget", 0.5)
    assert MajorityVote().decide(state(*samples, available=9 * FULL, max_samples=2)) == Finish(0, "max_samples", 0.5)


def test_samples_cut_off_neither_vote_nor_buy_more_of_their_kind() -> None:
    samples = [Sample(i, 64, Status.TRUNCATED, 64, None, 1.0, empty=False) for i in range(3)]
    assert isinstance(MajorityVote().decide(state(*samples, available=price(63))), Finish)


@pytest.mark.parametrize(
    ("samples_worth", "greedy", "name"), [(1, False, "single"), (3, False, "majority_vote"), (8, True, "single")]
)
def test_auto_votes_where_the_budget_buys_voters(samples_worth: int, greedy: bool, name: str) -> None:
    assert auto(flat_arm(), samples_worth * FULL, greedy) == name
