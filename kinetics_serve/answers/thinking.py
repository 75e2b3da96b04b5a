"""What of a text is said to the reader: not what was thought before, nor what the model made up after its answer."""

import re

_OPENED = ("<think>", "<thinking>", "<reasoning>")
_GOES_ON = re.compile(
    r"(?im)^[ \t]*(?:#+[ \t]*|\*+)?(?:question|problem|exercise|q|user|human|instruction)"
    r"[ \t]*\d*[ \t]*\*{0,2}[ \t]*[:：]"
    r"|<\|im_start\|>|<\|im_end\|>|<\|eot_id\|>|<\|endoftext\|>"
)
"""Where a model goes on with a question of its own."""


def after_thinking(text: str) -> str:
    """What follows the reasoning, where the server left reasoning in the text. Thinking that never ends is followed by
    nothing.
    """
    for opened in _OPENED:
        closed = f"</{opened[1:]}"
        if opened in text or closed in text:
            said = text.rpartition(closed)[2]
            return said.partition(opened)[0]
    return text


def turns(text: str) -> tuple[str, str]:
    """The text before the model goes on with a question of its own, and all the rest."""
    found = _GOES_ON.search(text)
    if found is None or not text[: found.start()].strip():
        return text, ""
    return text[: found.start()], text[found.start() :]
