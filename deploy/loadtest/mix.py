"""What clients ask: kinds of requests, how often each comes, and questions."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

Json = dict[str, Any]


def _budget(samples: int, strategy: str, **more: Any) -> Json:
    options = {"budget": {"samples": samples}, "strategy": strategy, "max_samples": samples}
    return {"kinetics": options | {"answer": {"extractor": "number"}} | more}


@dataclass(frozen=True, slots=True)
class Kind:
    """weight: how often it comes, beside the others'. fields: of the body, besides model, messages and max_tokens.
    leaves: its client doesn't wait for the end."""

    name: str
    weight: int
    fields: Json = field(default_factory=dict)
    leaves: bool = False

    @property
    def streamed(self) -> bool:
        return bool(self.fields.get("stream"))


STREAM: Json = {"stream": True}
LEFT_STRATEGY = "weighted_vote"
"""Only clients that leave ask for it, so that the server's metrics tell what those cost."""

MIX = (
    Kind("vote of 4, streamed", 5, _budget(4, "majority_vote") | STREAM),
    Kind("vote of 4", 4, _budget(4, "majority_vote")),
    Kind("best of 2, streamed", 2, _budget(2, "best_of_n") | STREAM),
    Kind("one sample", 2, _budget(1, "single")),
    Kind("reasoning_effort low", 2, {"reasoning_effort": "low"}),
    Kind("vote of 8, 10 s", 1, _budget(8, "majority_vote", deadline_s=10)),
    Kind("no budget, streamed", 3, STREAM),
    Kind("leaves", 2, _budget(4, LEFT_STRATEGY) | STREAM, leaves=True),
)

PATIENCE_S = (0.2, 3.0)
"""Within which a client that leaves has left."""

SYSTEM = "Solve the problem. End with the number alone on the last line."
STORIES = (
    "Mara has {a} crates of {b} apples each and sells {c} apples.",
    "A train of {a} wagons has {b} seats in each, and {c} of them are taken.",
    "A printer makes {a} pages a minute for {b} minutes; {c} pages are spoilt.",
)
LONG_SHARE = 0.3
"""Of the questions, those with a long text before them: prompts differ in length as they do in use."""


def choose(random: Random) -> Kind:
    return random.choices(MIX, [kind.weight for kind in MIX])[0]


def messages(random: Random) -> list[Json]:
    """A problem with numbers of its own, so that only the beginning of its prompt is cached."""
    numbers = {name: random.randint(2, 40) for name in "abc"}
    stories = random.sample(STORIES, len(STORIES)) * 8 if random.random() < LONG_SHARE else [random.choice(STORIES)]
    told = " ".join(story.format(**numbers) for story in stories)
    question = {"role": "user", "content": f"{told} How many are left?"}
    return [{"role": "system", "content": SYSTEM}, question]
