"""The documents, and the command lines in them."""

import re
import shlex
from collections.abc import Iterator

from tests.test_architecture import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]

BLOCK = re.compile(r"^```(?:sh|bash)?\n(.*?)^```|(?:^|\n)\n((?: {4}[^\n]*\n)+)", re.M | re.S)
"""A fenced block without another language, or an indented one."""

OURS = r"kinetics-serve|make|python3? |promtool|(?:deploy|examples|benchmarks)/[^\s`]+ |kubectl|docker|podman|pip "
QUOTED = re.compile(rf"`((?:[A-Z_]+=\S+ )*(?:{OURS})[^`…]*)`")
"""In running text, where a line may end within it."""


def blocks(text: str) -> list[list[str]]:
    """The lines of each block of a document, those that go on with a backslash or a pipe as one."""
    found = [re.sub(r"(\\|(?<=\|))\n\s*", "", fenced or indented) for fenced, indented in BLOCK.findall(text)]
    return [[line.strip() for line in block.splitlines() if line.strip()] for block in found]


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of a document's blocks and of its running text, without comments and variables before them."""
    quoted = [" ".join(line.split()) for line in QUOTED.findall(text)]
    for line in [*(line for block in blocks(text) for line in block), *quoted]:
        for part in re.split(r"&&|\||\(#", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # a line of something else
                continue
            words = words[next((number for number, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), 0) :]
            if words:
                yield words
