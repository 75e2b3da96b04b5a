from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kinetics_serve.cost import DENSE, ZERO, Architecture, AttentionLayers, KVPolicy, Price, SharedPrompt, Steps


class SamplesOfOnePrompt(RuleBasedStateMachine):
    """Samples join, stream and end in any order; the engine need not serve them in step."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[list[int]] = []  # [start, tokens]
        self.dense: set[int] = set()
        self.sparse: set[int] = set()
        self.charged = Steps(0)

    @initialize(dense_steps=st.sampled_from([None, 0, 5, 20]))
    def begin(self, dense_steps: int | None) -> None:
        self.group = SharedPrompt(dense_steps)

    @rule()
    def join(self) -> None:
        assert self.group.join() == max(self.dense | self.sparse, default=-1) + 1
        self.running.append([self.group.join(), 0])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(0, 30))
    def stream(self, data: st.DataObject, tokens: int) -> None:
        sample = data.draw(st.sampled_from(self.running))
        sample[1] += tokens
        self.read(*sample)
        self.group.advance(*sample)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), unseen=st.integers(0, 10))
    def end(self, data: st.DataObject, unseen: int) -> None:
        sample = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.settle(sample[0], sample[1] + unseen)

    def read(self, start: int, tokens: int) -> Steps:
        """Those of the sample."""
        dense_steps = tokens if self.group.dense_steps is None else min(tokens, self.group.dense_steps)
        self.dense |= set(range(start, start + dense_steps))
        self.sparse |= set(range(start + dense_steps, start + tokens))
        return Steps(dense_steps, tokens - dense_steps)

    def settle(self, start: int, tokens: int) -> None:
        ran, charged = self.read(start, tokens), self.group.settle(start, tokens)
        assert 0 <= charged.dense <= ran.dense
        assert 0 <= charged.sparse <= ran.sparse
        self.charged = Steps(self.charged.dense + charged.dense, self.charged.sparse + charged.sparse)

    def teardown(self) -> None:
        for start, tokens in self.running:
            self.settle(start, tokens)
        assert self.charged == Steps(len(self.dense), len(self.sparse))


TestSamplesOfOnePrompt = SamplesOfOnePrompt.TestCase
TestSamplesOfOnePrompt.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8), st.integers(0, 1000), st.randoms())
def test_samples_started_together_pay_for_the_prompt_once_per_step_of_the_longest(
    lengths: list[int], prompt: int, random: Random
) -> None:
    price = Price(Architecture("model", 100, 100, (AttentionLayers(2, 4, 2, 8),)), 10.0)
    group = SharedPrompt()
    starts = [(group.join(), tokens) for tokens in lengths]
    random.shuffle(starts)
    settled = [price.settle(prompt, n, DENSE, 0, group.settle(start, n)) for start, n in starts]
    unshared = [price.sample(prompt, n) - price.prompt_reads(prompt, n) for n in lengths]
    assert sum(settled, ZERO) == sum(unshared, ZERO) + price.prompt_reads(prompt, max(lengths))


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=6),
    st.integers(0, 80),
    st.sampled_from([DENSE, KVPolicy(1), KVPolicy(64, 16, 1.35), KVPolicy(100, 8, 2.0), KVPolicy(10**6)]),
    st.randoms(),
)
def test_in_step_the_prompt_is_paid_once_for_each_step_in_which_anybody_reads_it(
    samples: list[tuple[int, int]], prompt: int, kv: KVPolicy, random: Random
) -> None:
    """samples: when each joins, and how many tokens it generates. Some outgrow the KV budget, some join later.

    A step's reads are the prompt's KV if anybody attends densely, and its summaries if anybody sparsely; in which order
    a step's tokens are told of makes no difference.
    """
    price = Price(Architecture("model", 100, 100, (AttentionLayers(2, 4, 2, 8),)), 10.0)
    group = SharedPrompt(kv.dense_steps(prompt))
    starts: dict[int, int] = {}
    settled, own, read = ZERO, ZERO, ZERO
    dense_steps = 10**9 if kv.budget is None else max(0, kv.budget - prompt)
    whole, summaries = price.prompt_reads(prompt, 1), price.prompt_reads(prompt, 10**7, kv, start=10**7 - 1)
    for now in range(101):
        for index in random.sample(sorted(starts), len(starts)):
            joins, tokens = samples[index]
            group.advance(starts[index], min(now - joins, tokens))
        starts |= {index: group.join() for index, (joins, _) in enumerate(samples) if now == joins}
        running = [now - joins for joins, tokens in samples if joins <= now < joins + tokens]
        read += whole if any(steps < dense_steps for steps in running) else ZERO
        read += summaries if any(steps >= dense_steps for steps in running) else ZERO
        for index, (joins, tokens) in enumerate(samples):
            if now == joins + tokens:
                settled += price.settle(prompt, tokens, kv, 0, group.settle(starts[index], tokens))
                own += price.sample(prompt, tokens, kv) - price.prompt_reads(prompt, tokens, kv)
    assert settled == own + read


def test_a_sample_after_all_others_ended_shares_nothing() -> None:
    group = SharedPrompt()
    assert group.settle(group.join(), 10) == Steps(10)
    assert group.settle(group.join(), 7) == Steps(7)
    beyond = SharedPrompt(dense_steps=6)
    assert beyond.settle(beyond.join(), 10) == Steps(6, 4)
    assert beyond.settle(beyond.join(), 7) == Steps(6, 1)


def test_in_which_order_samples_advance_makes_no_difference() -> None:
    """The later of two, which begins to attend sparsely later, is told of first."""
    group = SharedPrompt(dense_steps=6)
    first = group.join()
    group.advance(first, 1)
    second = group.join()
    assert group.settle(second, 8) == Steps(6, 2)
    assert group.settle(first, 8) == Steps(1, 1)


@pytest.mark.parametrize(("start", "tokens"), [(1, 5), (-1, 5), (0, -1)])
def test_a_start_that_was_never_given_is_refused(start: int, tokens: int) -> None:
    group = SharedPrompt()
    assert group.join() == 0
    with pytest.raises(ValueError, match="expected tokens >= 0 and a start of"):
        group.advance(start, tokens)
