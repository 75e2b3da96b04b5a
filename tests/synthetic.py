"""A seeded model of a model: questions of different difficulty, answers, lengths and confidences of its samples."""

import random
from dataclasses import replace

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, KVPolicy
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.traces import Metadata, Question, Traces, Trial

ARCHITECTURE = Architecture("tiny", 100_000_000, 100_000_000, (AttentionLayers(30, 9, 3, 64),), max_context=8192)


def synthetic(
    seed: int = 0,
    questions: int = 20,
    trials: int = 16,
    max_tokens: int = 400,
    kv: KVPolicy = DENSE,
    model: str = "tiny",
    skill: float = 0.5,
    parameters: int = ARCHITECTURE.parameters,
) -> Traces:
    """skill: the mean chance that a sample is right, from 0 to 1. Right samples tend to be confident."""
    chance = random.Random(seed)
    return Traces(
        Metadata(
            "synthetic",
            model,
            max_tokens,
            kv,
            replace(ARCHITECTURE, name=model, parameters=parameters, active_parameters=parameters),
        ),
        tuple(_question(chance, number, trials, max_tokens, skill) for number in range(questions)),
    )


def _question(chance: random.Random, number: int, trials: int, max_tokens: int, skill: float) -> Question:
    right = min(0.98, max(0.02, chance.betavariate(2 * skill + 0.1, 2 * (1 - skill) + 0.1)))
    wrong = [1 / rank for rank in range(1, 8)]
    length = chance.uniform(0.1, 0.5) * max_tokens
    return Question(
        f"question {number}",
        ("right",),
        chance.randint(10, 200),
        tuple(_trial(chance, trial, right, wrong, length, max_tokens) for trial in range(trials)),
    )


def _trial(
    chance: random.Random, number: int, right: float, wrong: list[float], length: float, max_tokens: int
) -> Trial:
    correct = chance.random() < right
    answer = "right" if correct else f"wrong {chance.choices(range(len(wrong)), wrong)[0]}"
    tokens = max(1, int(chance.lognormvariate(0, 0.5) * length))
    confidence = chance.gauss(13 if correct else 12, 1)
    if tokens > max_tokens or chance.random() < 0.02:
        status, tokens, answer_, correct = Status.TRUNCATED, min(tokens, max_tokens), None, False
    else:
        status, answer_ = Status.FINISHED, answer
    lows = tuple((token, round(confidence - token / 40, 3)) for token in range(16, tokens, 7))
    lowest = lows[-1][1] if lows else confidence
    return Trial(number, f"so: {answer}", tokens, status, answer_, correct, confidence, lowest, lows=lows)
