"""Drives a run on recorded trials: no engine, no clock, no waiting.

Time is counted in decode steps. Every running sample generates one token a step; those that have all their tokens
then end, in the order of their launch, and the policy decides after each. Each model's first sample goes ahead by its
first token, as in `runner.live`. What a served batch does besides (requests of other clients, prefills that delay a
decode, samples that decode at different speeds) is not simulated.
"""

from collections.abc import Iterable, Sequence

from kinetics_serve.runner.run import Ended, Run
from kinetics_serve.strategies.state import Finish, Sample, Status
from kinetics_serve.traces.traces import Trial


def replay(run: Run, trials: Sequence[Sequence[Trial]], cached_tokens: Sequence[int] | None = None) -> Finish:
    """Runs the policy to its end. Returns what it finished with.

    trials: of each arm, at least as many as its max_samples, recorded with at least its max_tokens: its samples take
    theirs in turn. cached_tokens: of each arm, the prompt tokens that every sample but its first finds in the prefix
    cache; none where that is left out.
    """
    cached = cached_tokens or [0] * len(run.arms)
    step = 0
    fresh = [iter(each) for each in trials]
    tried: dict[int, tuple[Trial, int]] = {}
    began: dict[int, int] = {}
    ends: dict[int, int] = {}
    firsts: dict[int, tuple[int, int]] = {}  # by arm: the first sample, and the step of its first token
    waiting: list[Sample] = []

    def open_samples(samples: Iterable[Sample]) -> None:
        for sample in samples:
            index, arm = sample.index, sample.arm
            first, first_token = firsts.setdefault(arm, (index, step + 1))
            if index != first and step < first_token:
                waiting.append(sample)
                continue
            trial = next(fresh[arm])
            tokens = _tokens(sample, trial)
            tried[index] = trial, tokens
            run.opened(index)
            began[index] = step
            ends[index] = step + max(1, tokens)

    open_samples(run.decide())
    while run.finish is None:
        step = min(ends.values())
        if waiting:
            step = min(step, *[firsts[sample.arm][1] for sample in waiting])
        ending = sorted([index for index, end in ends.items() if end == step])
        advanced = set()  # those that began together advance together, so one of them shows how far
        for index, start in began.items():
            kind = run.samples[index].arm, start
            if kind not in advanced and ends[index] != step:
                advanced.add(kind)
                run.generated(index, run.told(index, step - start))
        if waiting:
            for index in ending:
                run.generated(index, min(step - began[index], tried[index][1]))
            ready = [sample for sample in waiting if firsts[sample.arm][1] <= step]
            waiting = [sample for sample in waiting if firsts[sample.arm][1] > step]
            open_samples(ready)
        launched: list[Sample] = []
        for index in ending:
            sample = run.samples[index]
            run.ended(index, _end(sample, *tried[index], cached[sample.arm] if index != firsts[sample.arm][0] else 0))
            del began[index], ends[index]
            launched += run.decide()
        if run.finish is None:
            open_samples(launched)
    for index, start in began.items():
        run.generated(index, run.told(index, step - start))
    run.cancel_running()
    return run.finish


def _tokens(sample: Sample, trial: Trial) -> int:
    """What the sample generates: all of the trial, unless its max_tokens or its floor end it."""
    tokens = min(trial.tokens, sample.max_tokens)
    if sample.floor is not None:
        for token, confidence in trial.lows:
            if confidence < sample.floor:
                return min(token, tokens)
    return tokens


def _end(sample: Sample, trial: Trial, tokens: int, cached_tokens: int) -> Ended:
    if sample.floor is not None and _fell_below(sample.floor, trial, tokens):
        return Ended(Status.STOPPED, tokens, 0, None, trial.confidence, trial.empty, lowest=trial.worst_window)
    whole = trial.status is Status.FINISHED and trial.tokens <= sample.max_tokens
    return Ended(
        Status.FINISHED if whole else Status.TRUNCATED,
        tokens,
        cached_tokens,
        trial.answer,
        trial.confidence,
        trial.empty,
        lowest=trial.worst_window,
    )


def _fell_below(floor: float, trial: Trial, tokens: int) -> bool:
    return any(confidence < floor and token <= tokens for token, confidence in trial.lows)
