"""Media that requests name by URL, which vLLM would fetch: from the hosts that an administrator allowed only."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from kinetics_serve.engine.upstream import Json
from kinetics_serve.requests.errors import invalid

_URL_FIELDS = ("image_url", "audio_url", "video_url", "file_url", "images")
"""Where content parts have a URL, or a list of them, or an object with one. Anthropic's have it in `source`."""

_TRANSFERS = ("kv_transfer_params", "ec_transfer_params")
_NOT_FETCHED = ("tools", "functions", "response_format", "text_format", "kinetics", "metadata", "chat_template_kwargs")


def check_media(body: Json, content: bytes, allowed_hosts: frozenset[str]) -> None:
    """Raises ApiError for a URL to anywhere but the allowed hosts; `data:` URLs carry what they show.

    content: the body as it came, which tells most bodies to be harmless at once. Names are compared, so a name that
    somebody else can point elsewhere should not be allowed.
    """
    if b"transfer_params" in content or b"\\u" in content:
        for field in _TRANSFERS:
            if body.get(field) is not None:
                raise invalid(f"{field} tells the engine where to connect to: it is not for clients", field)
    if b"url" not in content and b"images" not in content and b"\\u" not in content:
        return
    for where, url in _urls({key: value for key, value in body.items() if key not in _NOT_FETCHED}, ""):
        refusal = _refusal(url, allowed_hosts)
        if refusal is not None:
            raise invalid(f"{where}: {refusal}", where)


def _refusal(url: str, allowed_hosts: frozenset[str]) -> str | None:
    if url[:5].lower() == "data:":
        return None
    advice = "send the media itself in a data: URL"
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    # What parsers disagree on (backslashes, white space, a user in front of the host) can hide another host.
    if host is None or parts.scheme not in ("http", "https") or parts.username or not _plain(url):
        return f"only data:, and http and https to hosts that the server's administrator allowed: {advice}"
    if host not in allowed_hosts:
        return f"the host {host!r:.100} is not one that the server's administrator allowed: {advice}"
    return None


def _plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and not set(url) & set("\\ @")


def _urls(value: Any, where: str, *, named: bool = False) -> Iterator[tuple[str, str]]:
    """Every URL below `value`, and where it stands. named: the field that holds `value` is one for URLs."""
    if isinstance(value, str):
        if named:
            yield where, value
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _urls(each, f"{where}.{index}", named=named)
    elif isinstance(value, dict):
        for key, each in value.items():
            # A model's own words, shown to it again; only in a message, since the body itself may have any `type`.
            if where.startswith("messages.") and value.get("type") == "tool_use" and key == "input":
                continue
            place = f"{where}.{key}".lstrip(".")
            inside = key in _URL_FIELDS or key == "source" or (named and key == "url")
            if key == "source" and not isinstance(each, dict):
                inside = False
            yield from _urls(each, place, named=inside)


def media_host(stated: str) -> str:
    """An administrator's word for a host that media may come from. Raises ValueError."""
    host = stated.lower()
    if not host or urlsplit(f"//{host}").hostname != host:
        raise ValueError(f"expected the name of a host, such as media.example.com; given: {stated!r}")
    return host
