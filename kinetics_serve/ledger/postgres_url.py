"""A PostgreSQL URL as PostgreSQL's own programs take it (libpq's parameters), translated for asyncpg."""

import ssl
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL

from kinetics_serve.ledger.errors import LedgerMisuse

TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SESSIONS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")

_ALIKE = ("host", "port", "user", "password", "target_session_attrs", "prepared_statement_cache_size")
"""What asyncpg, or SQLAlchemy for it, takes by the same name."""
_SETTINGS = ("application_name", "options")
"""What the server is told when a connection begins."""
_FILES = ("sslrootcert", "sslcert", "sslkey")
_NEVER = ("channel_binding", "gssencmode")
"""What asyncpg does not do."""
ALLOWED = (*_ALIKE, *_SETTINGS, "connect_timeout", "sslmode", *_FILES, *_NEVER)


def translated(url: URL) -> tuple[URL, dict[str, Any]]:
    """The URL for SQLAlchemy's dialect of asyncpg, and asyncpg's further arguments.

    Raises LedgerMisuse, which names a parameter that can't be kept and what is allowed, and no password.
    """
    stated = dict(url.query)
    for name, value in stated.items():
        if name not in ALLOWED:
            raise LedgerMisuse(f"the ledger's URL can't have {name}: its parameters are {', '.join(ALLOWED)}")
        if not isinstance(value, str) and name not in ("host", "port"):
            raise LedgerMisuse(f"the ledger's URL states {name} more than once: keep one")
    texts = {name: value for name, value in stated.items() if isinstance(value, str)}
    for name in _NEVER:
        if texts.get(name, "disable") not in ("disable", "prefer"):
            raise LedgerMisuse(
                f"the ledger's URL asks for {name}={texts[name]}, which our driver, asyncpg, can't do: drop it. "
                "sslmode=verify-full with sslrootcert=FILE makes sure of the server's identity"
            )
    _check_choice(texts, "target_session_attrs", SESSIONS)
    port = _number(texts, "port", 1) if "port" in texts else url.port
    if port is not None and not 1 <= port <= 65535:
        raise LedgerMisuse(f"the port in the ledger's URL is a number from 1 to 65535; given: {port}")
    if "prepared_statement_cache_size" in texts:
        _number(texts, "prepared_statement_cache_size")
    arguments: dict[str, Any] = {}
    if (tls := _tls(texts)) is not None:
        arguments["ssl"] = tls
    if "connect_timeout" in texts:
        arguments["timeout"] = _number(texts, "connect_timeout", least=1)
    if settings := {name: texts[name] for name in _SETTINGS if name in texts}:
        arguments["server_settings"] = settings
    query = {name: value for name, value in stated.items() if name in _ALIKE}
    return url.set(drivername="postgresql+asyncpg", query=query), arguments


def _tls(stated: Mapping[str, str]) -> ssl.SSLContext | str | None:
    """asyncpg's `ssl`. Without files it looks for them where libpq does, in ~/.postgresql."""
    _check_choice(stated, "sslmode", TLS_MODES)
    mode = stated.get("sslmode")
    files = {name: stated[name] for name in _FILES if name in stated}
    if not files:
        return mode
    if mode not in ("require", "verify-ca", "verify-full"):
        raise LedgerMisuse(
            f"{next(iter(files))} in the ledger's URL needs sslmode=verify-full (or verify-ca, or require): with "
            f"{mode or 'none'}, a connection may go without TLS"
        )
    root, certificate, key = (files.get(name) for name in _FILES)
    if root is None and mode != "require":
        raise LedgerMisuse(f"sslmode={mode} in the ledger's URL needs sslrootcert=FILE, the CA's certificate")
    if key is not None and certificate is None:
        raise LedgerMisuse("sslkey in the ledger's URL needs sslcert=FILE, the certificate that it is for")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    reading = f"sslrootcert {root}"
    try:
        if root is None:
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_verify_locations(root)
        if certificate is not None:
            reading = f"sslcert {certificate} with its key {key or 'in the same file'}"
            context.load_cert_chain(certificate, key)
    except OSError as error:
        raise LedgerMisuse(f"the ledger's URL: can't read {reading}: {error}") from None
    return context


def _check_choice(stated: Mapping[str, str], name: str, choices: tuple[str, ...]) -> None:
    if stated.get(name, choices[0]) not in choices:
        raise LedgerMisuse(f"{name} in the ledger's URL is one of {', '.join(choices)}; given: {stated[name]!r}")


def _number(stated: Mapping[str, str], name: str, least: int = 0) -> int:
    if not (stated[name].isascii() and stated[name].isdecimal() and int(stated[name]) >= least):
        raise LedgerMisuse(f"{name} in the ledger's URL is a whole number from {least}; given: {stated[name]!r}")
    return int(stated[name])
