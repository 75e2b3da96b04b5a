"""What of a text is said to the reader: not what was thought before, nor what the model made up after its answer."""

import re

_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis", "<|channel|>final<|message|>"),
)
"""How models open and close their reasoning: most, Seed, Kimi, Magistral, Command A, OpenThinker, gpt-oss."""

_GOES_ON = re.compile(
    r"(?im)^[ \t]*(?:#+[ \t]*|\*+)?(?:question|problem|exercise|q|user|human|instruction)"
    r"[ \t]*\d*[ \t]*\*{0,2}[ \t]*[:：]"
    r"|<\|im_start\|>|<\|im_end\|>|<\|eot_id\|>|<\|endoftext\|>|<\|end(?:_of_solution)?\|>|<\|return\|>|</s>|<end_of_turn>"
    r"|<\|END_RESPONSE\|>"
    r"|(?:^|(?<=[.!?] ))[ \t]*(?:let me know|feel free to|(?:i )?hope (?:this|that|it) helps|would you like"
    r"|if you (?:have any|need (?:any|more|further|help)|would like|want me))\b"
)
"""Where a model goes on with a question of its own, or has only courtesies left."""


def after_thinking(text: str) -> str:
    """What follows the reasoning, where the server left reasoning in the text. Thinking that never ends is followed by
    nothing. A tag that opens it begins a line: in a sentence it is only mentioned.
    """
    for opened, closed in _TAGS:
        said = text.rpartition(closed)[2]
        if re.search(rf"(?m)^[ \t]*{re.escape(opened)}", said):
            return said.partition(opened)[0]
        text = said
    return text


def turns(text: str) -> tuple[str, str]:
    """The text before the model goes on with a question of its own, and all the rest."""
    found = _GOES_ON.search(text)
    if found is None or not text[: found.start()].strip():
        return text, ""
    return text[: found.start()], text[found.start() :]
