"""Drives a run on recorded trials: no engine, no clock, no waiting.

Time is counted in decode steps. Every running sample generates one token a step; those that have all their tokens
then end, in the order of their launch, and the policy decides after each. The first sample goes ahead by its first
token, as in `runner.live`. What a served batch does besides (requests of other clients, prefills that delay a
decode, samples that decode at different speeds) is not simulated.
"""

from collections.abc import Sequence

from kinetics_serve.runner.run import Ended, Run
from kinetics_serve.strategies.state import Finish, Sample, Status
from kinetics_serve.traces import Trial


def replay(run: Run, trials: Sequence[Trial], cached_tokens: int = 0) -> Finish:
    """Runs the policy to its end: sample i of the run is `trials[i]`. Returns what it finished with.

    trials: at least as many as the terms' max_samples, recorded with at least the terms' max_tokens.
    cached_tokens: the prompt tokens that every sample but the first finds in the prefix cache.
    """
    step = 0
    began: dict[int, int] = {}
    ends: dict[int, int] = {}

    def open_samples(samples: Sequence[Sample]) -> None:
        for sample in samples:
            run.opened(sample.index)
            began[sample.index] = step
            ends[sample.index] = step + max(1, min(trials[sample.index].tokens, sample.max_tokens))

    launched = run.decide()
    if launched:
        open_samples(launched[:1])
        step = 1
        run.generated(0, min(1, trials[0].tokens))
        open_samples(launched[1:])
    while run.finish is None:
        step = min(ends.values())
        ending = sorted(index for index, end in ends.items() if end == step)
        for index, start in began.items():
            if index not in ending:
                run.generated(index, step - start)
        launched = []
        for index in ending:
            run.ended(index, _end(run.samples[index], trials[index], cached_tokens if index else 0))
            del began[index], ends[index]
            launched += run.decide()
        if run.finish is None:
            open_samples(launched)
    run.cancel_running()
    return run.finish


def _end(sample: Sample, trial: Trial, cached_tokens: int) -> Ended:
    whole = trial.status is Status.FINISHED and trial.tokens <= sample.max_tokens
    return Ended(
        Status.FINISHED if whole else Status.TRUNCATED,
        min(trial.tokens, sample.max_tokens),
        cached_tokens,
        trial.answer,
        trial.confidence,
        trial.empty,
    )
