"""Which sample to answer with, and how long the next one may be: what every policy decides alike."""

from collections.abc import Iterable

from kinetics_serve.strategies.state import MIN_SAMPLE_TOKENS, Launch, Sample, State, Status

LENGTH_MARGIN = 1.25
"""A last sample is worth launching on a short budget if it may be this much longer than any that finished."""


def best(samples: Iterable[Sample]) -> int | None:
    """The index of the sample to answer with: answered before unanswered, whole before cut off, text before
    none, then the higher score, then the earlier sample. None where no sample has text; what failed has none.
    """

    def rank(sample: Sample) -> tuple[bool, bool, float, int]:
        whole = sample.status is Status.FINISHED
        return (whole and sample.answer is not None, whole, sample.score, -sample.index)

    with_text = [sample for sample in samples if not sample.empty and sample.status is not Status.FAILED]
    return max(with_text, key=rank).index if with_text else None


def affordable_launch(state: State, want: int) -> Launch | None:
    """At most `want` samples of full length; where not one is affordable and none runs, one shorter sample.

    The shorter one must be long enough to be of use: the first of all takes what it gets, a later one must have
    room for the longest answer seen so far.
    """
    count = min(want, state.affordable(state.arm.max_tokens))
    if count > 0:
        return Launch(count, state.arm.max_tokens)
    if state.running or want <= 0 or state.samples_left <= 0:
        return None
    finished = [sample.tokens for sample in state.with_status(Status.FINISHED)]
    if state.samples and not finished:
        return None
    useful = max([MIN_SAMPLE_TOKENS, *(int(tokens * LENGTH_MARGIN) for tokens in finished)])
    longest = state.longest_affordable()
    return Launch(1, longest) if longest >= useful else None
