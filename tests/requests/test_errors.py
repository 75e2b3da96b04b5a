"""What clients are told of each package's errors."""

import pytest

from kinetics_serve.engine.errors import EngineLost, EngineOverloaded, EngineRejected, EngineSilent
from kinetics_serve.engine.pool import ModelNotFound
from kinetics_serve.errors import KineticsError
from kinetics_serve.ledger.errors import LedgerUnavailable, QuotaExceeded, RequestTooLarge
from kinetics_serve.planner.budget import BudgetTooSmall
from kinetics_serve.planner.choose import AccuracyOutOfReach
from kinetics_serve.requests.admission import Overloaded
from kinetics_serve.requests.errors import as_api_error
from kinetics_serve.scorers.scorer import ScorerFailed

TOLD: list[tuple[Exception, int, str, str | None, str | None, str]] = [
    (BudgetTooSmall(1, 2, 3), 400, "budget_too_small", "kinetics.budget", None, "state at least 2 eFLOPs"),
    (AccuracyOutOfReach(0.9, 0.5), 400, "invalid_request", "kinetics.budget.accuracy", None, "is 0.500"),
    (ModelNotFound("no m"), 404, "model_not_found", "model", None, "no m"),
    (EngineRejected(422, "no"), 422, "invalid_request", None, None, "no"),
    (EngineLost("gone"), 503, "engine_unavailable", None, "5", "gone; try again in a few seconds"),
    (EngineSilent("silence"), 504, "engine_timeout", None, None, "silence, so it was given up"),
    (EngineOverloaded("busy", None), 429, "overloaded", None, "5", "busy; try again later"),
    (EngineOverloaded("busy", 7), 429, "overloaded", None, "7", "busy; try again in 7 s"),
    (Overloaded("full", 9), 429, "overloaded", None, "9", "full; try again in 9 s"),
    (ScorerFailed("no score"), 502, "scorer_failed", "kinetics.scorer", None, "no score"),
    (RequestTooLarge("t", 3, 2, "a day"), 400, "invalid_request", None, None, "a smaller max_tokens"),
    (QuotaExceeded("spent", 60), 429, "quota_exceeded", None, "60", "spent; try again in 60 s"),
    (LedgerUnavailable("no answer"), 503, "ledger_unavailable", None, "5", "no answer; try again in a few seconds"),
    (KeyError("secret"), 500, "internal_error", None, None, "the server's log has the details"),
]


@pytest.mark.parametrize(("error", "status", "code", "param", "retry_after", "end"), TOLD)
def test_an_error_has_its_place_in_the_envelope(
    error: Exception, status: int, code: str, param: str | None, retry_after: str | None, end: str
) -> None:
    told = as_api_error(error)
    assert (told.status, told.code, told.param) == (status, code, param)
    assert (told.headers or {}).get("retry-after") == retry_after
    assert told.message.endswith(end)
    assert told.envelope["error"]["type"] == ("invalid_request_error" if status < 500 else "server_error")


def test_every_error_that_a_client_can_get_says_how() -> None:
    def below(kind: type[KineticsError]) -> set[type[KineticsError]]:
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    for kind in below(KineticsError) - {KineticsError}:
        assert kind.code != KineticsError.code or kind.__init__ is not KineticsError.__init__, kind
