"""A plan holds for samples that are drawn as its calibration's were: what a request leaves open is filled in so, and
what it states otherwise is said.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kinetics_serve.budgeted.arms import LiveArm
from kinetics_serve.engine.upstream import Json
from kinetics_serve.planner.calibration import SAMPLING_FIELDS, Calibration, Recorded
from kinetics_serve.planner.plan import Plan

QUESTION = "\0"
"""Stands for the question in a prompt that a template makes."""

OTHERS_THAT_MATTER = (
    *("top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "bad_words"),
    *(
        "chat_template",
        "chat_template_kwargs",
        "response_format",
        "structured_outputs",
        "tools",
        "thinking_token_budget",
    ),
)
"""Fields that change what a model says, and that no recording states."""


def sampled_as_recorded(plan: Plan[LiveArm], calibration: Calibration) -> Plan[LiveArm]:
    """The same plan, each of its arms sampled as it was recorded, with notes on what differs."""
    assert plan.choice is not None
    arms, notes = [], list(plan.notes)
    for arm, calibrated in zip(plan.arms, plan.choice.point.arms, strict=True):
        recorded = calibration.recorded_of(calibrated)
        if recorded is not None:
            notes += [note for note in differences(arm, recorded) if note not in notes]
            arm = replace(arm, prompt=replace(arm.prompt, body=_filled(arm.prompt.body, recorded.request_fields)))
        arms.append(arm)
    return replace(plan, arms=tuple(arms), notes=tuple(notes))


def differences(arm: LiveArm, recorded: Recorded) -> list[str]:
    """What of a request and its engine is not as it was recorded."""
    body, found = arm.prompt.body, []
    for field in SAMPLING_FIELDS:
        stated, was = body.get(field), recorded.sampling.get(field)
        if stated is not None and stated != was and not (field == "stop" and not was and not stated):
            found.append(f"{field} is {stated!r:.60}, and the calibration was recorded with {was!r:.60}")
    template = recorded.sampling.get("template")
    if isinstance(template, str) and not _written_by(template, body):
        found.append(f"the prompt does not follow the calibration's template, {template!r:.200}")
    info = arm.route.served.info
    for field in OTHERS_THAT_MATTER:
        if body.get(field) and body[field] != recorded.sampling.get(field):
            found.append(f"{field} is stated, and the calibration was recorded without it")
    for name, now in (("cache_block", info.kv_block), ("device", info.device), ("vllm", info.vllm)):
        was = recorded.engine.get(name)
        if was is not None and now is not None and was != now:
            found.append(f"the engine's {name} is {now}, and the calibration was recorded with {was}")
    root, was = arm.route.served.card.root, recorded.engine.get("model_root")
    if was is not None and root != was:
        found.append(f"the engine serves {root}, and the calibration was recorded with {was}")
    return [f"{each}: its accuracy may not hold" for each in found]


def _filled(body: Json, sampling: Mapping[str, Any]) -> Json:
    return body | {field: value for field, value in sampling.items() if body.get(field) is None}


def _written_by(template: str, body: Json) -> bool:
    """Whether what the user said last can be the template with a question in it."""
    try:
        before, _, after = template.format(query=QUESTION).partition(QUESTION)
    except (LookupError, ValueError):  # a stranger's traces, whose braces mean something else
        return False
    said: Any = body.get("prompt")
    for message in body.get("messages") or ():
        if message.get("role") == "user":
            said = message.get("content")
    return not isinstance(said, str) or (said.startswith(before) and said.endswith(after))
