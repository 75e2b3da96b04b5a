"""What a client is told of a run's money, votes and samples: the `kinetics` object, and usage."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kinetics_serve.answers.no_vote import NoVote
from kinetics_serve.budgeted.money import in_dollars
from kinetics_serve.errors import KineticsError
from kinetics_serve.observability.numbers import dollars_for_people, for_people
from kinetics_serve.runner.run import Run
from kinetics_serve.scorers.spec import CONFIDENCE
from kinetics_serve.strategies.state import Sample, Status
from kinetics_serve.strategies.votes import tally

Json = dict[str, Any]

_BY_STATUS = {
    Status.FINISHED: NoVote.NO_ANSWER,
    Status.TRUNCATED: NoVote.CUT_OFF,
    Status.STOPPED: NoVote.STOPPED,
    Status.CANCELLED: NoVote.CANCELLED,
    Status.FAILED: NoVote.FAILED,
}

_ROUNDED = ("budget_eflops", "spent_eflops", "compute_flops", "memory_bytes")


def bill(
    run: Run,
    scorer: str = CONFIDENCE,
    forces: bool = False,
    meaning: str | None = None,
    text_of: Callable[[Sample], str] | None = None,
    kind_of: Callable[[str], str] | None = None,
    notes: Sequence[str] = (),
) -> Json:
    """The `kinetics` object of a response, of a run that has finished.

    scorer: the kind that scored its samples. forces: answers of samples that are cut off are asked for. meaning: the
    kind that grouped answers by what they mean. text_of: what a sample says, where the client wants to see every one.
    kind_of: what an answer was taken for. notes: what the client should know besides.
    """
    assert run.finish is not None
    winner = run.finish.winner
    arm = answering_arm(run)
    answer = run.samples[winner].answer if winner is not None else None
    found: Json = {
        "strategy": run.policy.name,
        "model": run.arms[arm].model,
        "kv_budget": run.arms[arm].kv.budget or "dense",
        "budget_eflops": run.account.budget,
        "spent_eflops": run.account.spent,
        "compute_flops": run.cost.compute_flops,
        "memory_bytes": run.cost.memory_bytes,
        "arithmetic_intensity": run.arms[arm].price.intensity,
        "samples_started": len(run.samples),
        "samples_finished": samples_finished(run),
        "samples_truncated": sum([sample.status is Status.TRUNCATED for sample in run.samples]),
        "completion_tokens": run.completion_tokens,
        "samples_failed": len(run.failures),
        "stop_reason": run.finish.reason,
        "answer": answer,
        "answer_kind": kind_of(answer) if kind_of is not None and answer is not None else None,
        "confidence": run.finish.confidence,
        "votes": votes(run),
        "no_votes": dict(Counter(filter(None, map(no_vote, run.samples)))),
        "notes": list(notes),
    }
    found["saved"] = {
        "early_stop_eflops": round(run.early_stop_eflops),
        "sparse_attention_eflops": run.sparse_eflops,
        "shared_prefix_eflops": run.shared_prefix_eflops,
    }
    found["rounded"] = {name: for_people(found[name]) for name in _ROUNDED}
    money = in_dollars({name: found[name] for name in _ROUNDED}, run.arms[0].price)
    found["rounded"] |= {name: dollars_for_people(amount) for name, amount in money.items()}
    found |= money
    if len(run.arms) > 1:
        found["stages"] = [_stage(run, number) for number in range(len(run.arms))]
    eflops, extras = run.arms[0].eflops, run.extras
    if forces:
        found["forced"] = {"completion_tokens": extras.forced_tokens, "spent_eflops": eflops(extras.forced)}
    if meaning is not None:
        found["meaning"] = {"kind": meaning, "spent_eflops": eflops(extras.grouped)}
    if scorer != CONFIDENCE:
        found["scorer"] = {"kind": scorer, "spent_eflops": eflops(extras.scored)}
    if text_of is not None:
        found["samples"] = [_sample(run, sample, text_of(sample)) for sample in run.samples]
    return found


def progress(run: Run, tail_of: Callable[[Sample], str] | None = None) -> Json:
    """The `kinetics` object of a run that goes on.

    tail_of: what a sample says last, where the client wants to see every one.
    """
    found: Json = {
        "spent_eflops": run.account.spent,
        "reserved_eflops": run.account.reserved,
        "budget_eflops": run.account.budget,
        "samples_started": len(run.samples),
        "samples_running": run.state.running,
        "samples_finished": samples_finished(run),
        "completion_tokens": run.completion_tokens,
        "votes": votes(run),
    }
    if tail_of is not None:
        cost, eflops = run.so_far()
        found["so_far"] = {
            "eflops": eflops,
            "compute_flops": cost.compute_flops,
            "memory_bytes": cost.memory_bytes,
            "arithmetic_intensity": run.arms[0].price.intensity,
        }
        found["samples"] = [_running_sample(sample, tail_of(sample)) for sample in run.samples]
    return found


def usage(run: Run) -> Json:
    """OpenAI's usage: of the prompt and the winner, which are what the client sees, and in the details of all samples.

    Load tools divide by `completion_tokens`: with the tokens of all samples, their times per token would be too short.
    """
    winner = run.finish.winner if run.finish is not None else None
    prompt, completion = run.arms[0].prompt_tokens, 0 if winner is None else run.samples[winner].tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": run.cached_tokens.get(0, 0)},
        "completion_tokens_details": {"sampled_tokens": run.completion_tokens},
    }


def answering_arm(run: Run) -> int:
    """Whose answer it is: of several, the first's until the run has ended."""
    winner = run.finish.winner if run.finish is not None else None
    return 0 if winner is None else run.samples[winner].arm


def votes(run: Run) -> list[Json]:
    return [{"answer": vote.answer, "count": vote.count, "weight": vote.weight} for vote in tally(run.samples)]


def no_vote(sample: Sample) -> str | None:
    """Why a sample has no vote; None where it has one, or still runs."""
    if sample.answer is not None:
        return None
    return sample.no_vote or _BY_STATUS.get(sample.status)


def samples_finished(run: Run) -> int:
    """Samples that ran to their end, be it max_tokens."""
    return sum([sample.status in (Status.FINISHED, Status.TRUNCATED) for sample in run.samples])


def _stage(run: Run, arm: int) -> Json:
    samples = [sample for sample in run.samples if sample.arm == arm]
    return {
        "model": run.arms[arm].model,
        "kv_budget": run.arms[arm].kv.budget or "dense",
        "samples_started": len(samples),
        "completion_tokens": sum(sample.tokens for sample in samples),
    }


def _error(failure: Exception) -> Json:
    if isinstance(failure, KineticsError):
        return {"code": failure.code, "message": str(failure)}
    return {"code": "internal_error", "message": "the server's log has the details"}


def _running_sample(sample: Sample, tail: str) -> Json:
    return {
        "index": sample.index,
        "status": sample.status.value,
        "tokens": sample.tokens,
        "max_tokens": sample.max_tokens,
        "answer": sample.answer,
        "no_vote": no_vote(sample),
        "tail": tail,
    }


def _sample(run: Run, sample: Sample, text: str) -> Json:
    return {
        "index": sample.index,
        "model": run.arms[sample.arm].model,
        "status": sample.status.value,
        "tokens": sample.tokens,
        "answer": sample.answer,
        "no_vote": no_vote(sample),
        "score": sample.score,
        "text": text,
        "error": _error(run.failures[sample.index]) if sample.index in run.failures else None,
    }
