"""Where a server is: its URL, as an administrator states it."""

from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


def server_url(stated: str, key_option: str = "--api-key") -> str:
    """The URL that the API's paths are added to, the same for all ways to state it: with or without a slash or `/v1` at
    its end, its scheme's own port, capital letters in its host.

    key_option: where a key for that server is stated instead of in its URL. Raises ValueError, whose message repeats
    nothing that may be a password.
    """
    if "@" in stated:
        raise ValueError(
            "expected a URL without a user and a password, which logs and metrics would show: a key for that server is "
            f"stated with {key_option}; given: one with an @"
        )
    if "?" in stated or "#" in stated:
        raise ValueError("expected a URL that ends with its path, since more is added to that; given: one with ? or #")
    try:
        parts = urlsplit(stated)
        host, port = parts.hostname, parts.port
    except ValueError:  # no port, or no address, has such a number
        host = port = None
    if not host or port == 0 or parts.scheme not in DEFAULT_PORTS or not stated.isprintable() or " " in stated:
        raise ValueError(f"expected a URL such as http://localhost:8001; given: {stated!r}")
    address = f"[{host}]" if ":" in host else host
    if port is not None and port != DEFAULT_PORTS[parts.scheme]:
        address += f":{port}"
    return f"{parts.scheme}://{address}{parts.path.rstrip('/').removesuffix('/v1').rstrip('/')}"
