"""How the answers of a request are read: by what it states, or by what its prompt and its format are."""

from typing import Any

from kinetics_serve.answers.behaviour import ProgramKeys, ProgramRunner
from kinetics_serve.answers.extract import extractor
from kinetics_serve.answers.groups import AnswerGroups, Keys
from kinetics_serve.answers.options import choice_of, options_of
from kinetics_serve.answers.programs import code
from kinetics_serve.answers.reader import Reader
from kinetics_serve.answers.spec import Extractor
from kinetics_serve.answers.thinking import after_thinking
from kinetics_serve.budgeted.options import AnswerOption
from kinetics_serve.engine.upstream import Json
from kinetics_serve.requests.errors import ApiError


def check_allowed(answer: AnswerOption, allow_code: bool) -> None:
    """Raises ApiError for programs where the administrator does not allow to run them."""
    if answer.kind == "code" and not allow_code:
        raise ApiError(
            403,
            "invalid_request",
            'this server runs no programs of samples: leave the kind "code" out, or ask its administrator, who can '
            "start it with --allow-code",
            "kinetics.answer.kind",
        )


def reader_of(answer: AnswerOption, body: Json, keys: Keys, runner: ProgramRunner) -> Reader:
    """body: the request as it goes to the engine. keys: of answers that are no programs. runner: of programs."""
    stated = answer.for_format(body.get("response_format"))
    ignored = frozenset(stated.ignored_fields)
    extract = extractor(stated.extractor, stated.pattern, ignored)
    if stated.tests is not None:
        keys = ProgramKeys(runner, stated.tests.trials())
        extract = _first(code) if stated.extractor == "auto" else extract
    if stated.extractor in ("auto", "choice") and stated.kind in ("auto", "choice"):
        options = options_of(_question(body))
        if options:
            extract = _first(choice_of(options), extract)
    return Reader(extract, AnswerGroups(stated.equivalence, keys), ignored)


def _first(*extractors: Extractor) -> Extractor:
    def extract(text: str) -> str | None:
        said = after_thinking(text)
        return next((answer for each in extractors if (answer := each(said)) is not None), None)

    return extract


def _question(body: Json) -> str:
    """The text of the last thing that the user said, or of the prompt."""
    said: Any = body.get("prompt")
    for message in body.get("messages") or ():
        if isinstance(message, dict) and message.get("role") == "user":
            said = message.get("content")
    if isinstance(said, list):
        parts = [part.get("text") for part in said if isinstance(part, dict)]
        said = "\n".join([part for part in parts if isinstance(part, str)])
    return said if isinstance(said, str) else ""
