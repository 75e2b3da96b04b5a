"""What can go wrong between us and a vLLM server."""

from kinetics_serve.errors import RETRY_AFTER_S, KineticsError


class EngineUnavailable(KineticsError):
    """No answer from the server, or one that broke off. Another try may succeed."""

    status = 503
    code = "engine_unavailable"
    retry_after_s: int | None = RETRY_AFTER_S
    advice = "; try again in a few seconds"

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        """retry_after_s: what the server asks for, None where it doesn't say."""
        super().__init__(message)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
            self.advice = f"; try again in {retry_after_s} s"


class EngineLost(EngineUnavailable):
    """There was no connection: its circuit is open."""


class EngineRefusesKey(EngineUnavailable):
    """The server answered 401 or 403."""


class EngineNonsense(EngineUnavailable):
    """The server answered, but not as vLLM does: what it generated is not known."""


class EngineOverloaded(EngineUnavailable):
    """The server answered 429."""

    status = 429
    code = "overloaded"
    advice = "; try again later"


class EngineRejected(KineticsError):
    """The server refused the request as it is: `status` is its own, as are the words of `message`."""

    code = "invalid_request"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineSilent(EngineUnavailable):
    """The server took longer than it may."""

    status = 504
    code = "engine_timeout"
    retry_after_s = None
    advice = ", so it was given up"


class EngineGaveUp(EngineSilent):
    """The server, or a proxy before it, answered 504: the request took too long, and may still run there. Another
    server would take as long.
    """
