"""What a policy would have scored and spent on recorded traces, with intervals."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinetics_serve.cost import Price
from kinetics_serve.traces.intervals import Interval, bootstrap
from kinetics_serve.runner.replay import replay
from kinetics_serve.runner.run import Run, Terms
from kinetics_serve.strategies.state import Policy, Status
from kinetics_serve.traces.traces import Question, Traces, Trial

CACHE_BLOCK = 16
"""Tokens of a block of vLLM's prefix cache by default: later samples find the prompt's whole blocks there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Means over all questions and repeats of a replay. samples: launched, tokens: generated, of one request.
    by_question: accuracy by query; spent_by_question: eFLOPs.
    """

    accuracy: Interval
    eflops: Interval
    budget: float
    samples: float
    tokens: float
    requests: int
    stop_reasons: dict[str, int]
    by_question: dict[str, float]
    spent_by_question: dict[str, float]


def cached_tokens(prompt_tokens: int, block: int = CACHE_BLOCK) -> int:
    """The prompt tokens that a second sample finds cached: whole blocks, and never the last token. 0: no cache."""
    return (prompt_tokens - 1) // block * block if block else 0


@dataclass(frozen=True, slots=True)
class Second:
    """A cascade's second stage: its traces, and what their samples cost and how many and how long they may be."""

    traces: Traces
    price: Price
    max_tokens: int
    max_samples: int

    def terms(self, question: Question) -> Terms:
        count = min(self.max_samples, len(question.trials))
        return Terms(self.price, question.prompt_tokens, self.max_tokens, count, self.traces.metadata.kv)


def _correct(run: Run, winner: int | None, trials: Sequence[Sequence[Trial]]) -> bool:
    """Whether the answer is right. A sample that was cut off has none, whatever its trial went on to say.

    trials: of each arm, whose samples took theirs in turn.
    """
    if winner is None or run.samples[winner].status is not Status.FINISHED:
        return False
    if len(trials) == 1:
        return trials[0][winner].correct
    arm = run.samples[winner].arm
    return trials[arm][sum(sample.arm == arm for sample in run.samples[:winner])].correct


def replay_all(
    traces: Traces,
    policy: Callable[[Terms, int], Policy],
    budget: Callable[..., int],
    price: Price,
    *,
    max_tokens: int,
    max_samples: int,
    repeats: int = 20,
    seed: int = 0,
    cache_block: int = CACHE_BLOCK,
    second: Second | None = None,
) -> Outcome:
    """Every question asked `repeats` times, each time with its trials in another random order.

    policy: for a question's terms and budget, in eFLOPs. budget: for the terms of each stage. max_samples: cut to the
    trials a question has. The intervals resample questions: they are about other questions of the same task. second: of
    a cascade; questions that it was not recorded on are left out.
    """
    import numpy as np

    chance = np.random.default_rng(seed)
    results: list[list[tuple[float, float]]] = []
    by_question: dict[str, float] = {}
    spent_by_question: dict[str, float] = {}
    reasons: Counter[str] = Counter()
    samples = tokens = budgets = 0
    further = {question.query: question for question in second.traces.questions} if second is not None else {}
    for question in traces.questions:
        others: list[Terms] = []
        if second is not None:
            if question.query not in further:
                continue
            others = [second.terms(further[question.query])]
        count = min(max_samples, len(question.trials))
        terms = Terms(price, question.prompt_tokens, max_tokens, count, traces.metadata.kv)
        eflops = budget(terms, *others)
        cached = cached_tokens(question.prompt_tokens, cache_block)
        chosen = policy(terms, eflops)
        outcomes = []
        orders = np.tile(np.arange(len(question.trials)), (repeats, 1))
        for order in chance.permuted(orders, axis=1)[:, :count].tolist():
            trials = [question.trials[number] for number in order]
            more = [chance.permutation(np.array(further[question.query].trials, object)).tolist() for _ in others]
            run = Run(chosen, terms, eflops, *others)
            finish = replay(run, trials, cached, *more)
            correct = _correct(run, finish.winner, [trials, *more])
            outcomes.append((float(correct), float(run.account.spent)))
            reasons[finish.reason] += 1
            samples += len(run.samples)
            tokens += sum([sample.tokens for sample in run.samples])
        budgets += eflops
        results.append(outcomes)
        by_question[question.query] = sum([correct for correct, _ in outcomes]) / repeats
        spent_by_question[question.query] = sum([spent for _, spent in outcomes]) / repeats
    requests = len(results) * repeats
    return Outcome(
        bootstrap([[correct for correct, _ in outcomes] for outcomes in results]),
        bootstrap([[spent for _, spent in outcomes] for outcomes in results]),
        budgets / len(results),
        samples / requests,
        tokens / requests,
        requests,
        dict(reasons.most_common()),
        by_question,
        spent_by_question,
    )
