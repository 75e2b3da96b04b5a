"""What HTTP/1.0 and HEAD need beyond what a route does."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class PlainHttp:
    """HEAD is answered as GET is, without the body. To HTTP/1.0, which has no chunks, an answer goes with its length.

    Streams of events stay as they are: they would come too late, and the proxies that still speak HTTP/1.0 read them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self.app(dict(scope, method="GET"), receive, _without_body(send))
        elif scope["type"] == "http" and scope["http_version"] == "1.0":
            await self.app(scope, receive, _with_length(send))
        else:
            await self.app(scope, receive, send)


def _without_body(send: Send) -> Send:
    async def passing(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return passing


def _with_length(send: Send) -> Send:
    start: Message = {}
    parts: list[bytes] = []

    async def collecting(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message["headers"]}
            if b"content-length" in headers or headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                await send(message)
            else:
                start = message
        elif not start:
            await send(message)
        else:
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = b"".join(parts)
                length = (b"content-length", str(len(body)).encode())
                await send({**start, "headers": [*start["headers"], length]})
                await send({"type": "http.response.body", "body": body})

    return collecting
