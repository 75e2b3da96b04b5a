"""What the front-end logs, and how. Prompts, answers, keys and query strings are in no line."""

import json
import logging
import time
from datetime import UTC, datetime
from typing import Literal

from huggingface_hub.utils.logging import get_logger as hub_logger
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinetics_serve.observability.request_id import request_id

LogFormat = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_QUIET = ("httpx", "aiosqlite", "alembic", "uvicorn.error")
_PROBES = ("/health", "/ready", "/metrics")

access_log = logging.getLogger("kinetics_serve.access")


def configure(level: str, form: LogFormat) -> None:
    """Sets up logging to standard error, for the whole process."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Its own handler would print again what it passes on to ours.
    hub_logger("huggingface_hub").handlers.clear()
    for library in _QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `fields` that a record was given stand beside the rest."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (name := request_id.get()) is not None:
            line["request_id"] = name
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class AccessLog:
    """Middleware: a line for each request when it is over, probes at debug level only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        level = logging.DEBUG if scope["path"] in _PROBES else logging.INFO
        if not access_log.isEnabledFor(level):
            return await self._app(scope, receive, send)
        begun, status = time.monotonic(), 0

        async def send_noticed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noticed)
        finally:
            tenant = scope.get("state", {}).get("tenant")
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(time.monotonic() - begun, 4),
                "tenant": tenant.name if tenant is not None else None,
            }
            access_log.log(level, "%s %r %d in %.3f s", *list(fields.values())[:4], extra={"fields": fields})
