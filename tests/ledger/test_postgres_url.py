"""PostgreSQL's URLs with the parameters that its own programs take."""

import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable
from tests.ledger.conftest import emptied
from tests.ledger.postgres import Postgres


async def said(url: str, question: str) -> str:
    database = Database(url)
    try:
        async with database.read() as connection:
            return str((await connection.execute(text(question))).scalar())
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("parameters", "question", "answer"),
    [
        ("application_name=kinetics", "SHOW application_name", "kinetics"),
        ("options=-csearch_path%3Delsewhere", "SHOW search_path", "elsewhere"),
        ("channel_binding=prefer&gssencmode=disable&sslmode=prefer&connect_timeout=5", "SELECT 1", "1"),
        ("target_session_attrs=read-write&prepared_statement_cache_size=0", "SELECT 1", "1"),
    ],
)
async def test_parameters_hold(postgres: str, parameters: str, question: str, answer: str) -> None:
    await emptied(postgres)
    assert await said(f"{postgres}?{parameters}", question) == answer


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("db/x?channel_binding=require", "channel_binding=require, which our driver, asyncpg, can't do"),
        ("db/x?sslmode=bogus", "sslmode in the ledger's URL is one of disable, allow, prefer, require, verify-ca"),
        ("db/x?sslmode=require&sslrootcert=/nowhere.pem", "can't read sslrootcert /nowhere.pem"),
        ("db/x?sslmode=require&sslcert=/nowhere.pem", "can't read sslcert /nowhere.pem"),
        ("db/x?sslmode=verify-full&sslcert=/c.pem", "needs sslrootcert=FILE"),
        ("db/x?sslmode=require&sslkey=/k.pem", "needs sslcert=FILE"),
        ("db/x?sslrootcert=/c.pem", "needs sslmode=verify-full"),
        ("db/x?connect_timeout=soon", "connect_timeout in the ledger's URL is a whole number from 1"),
        ("db/x?target_session_attrs=best", "is one of any, primary"),
        ("db/x?keepalives=1", "can't have keepalives: its parameters are host, port"),
        ("db/x?sslmode=disable&sslmode=require", "states sslmode more than once"),
        ("db:99999/x", "a number from 1 to 65535; given: 99999"),
        ("db:port/x", "is no number; in a password, write"),
    ],
)
def test_what_can_not_be_kept_is_named_with_what_is_allowed(rest: str, words: str) -> None:
    with pytest.raises(LedgerMisuse) as caught:
        Database(f"postgresql://me:hidden@{rest}")
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of two servers, each its own authority, that are both called localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("authorities")
    for name in ("ours", "other"):
        made = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext"]
        files = ["subjectAltName=DNS:localhost", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"]
        subprocess.run(["openssl", "req", "-x509", *made, *files], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def with_tls(authorities: Path) -> Iterator[str]:
    """The URL of a server that shows the certificate `ours`, at localhost."""
    folder = Path(tempfile.mkdtemp(prefix="kinetics-postgres-"))
    try:
        server = Postgres(folder, authorities / "ours.crt", authorities / "ours.key")
        try:
            yield server.url.replace("127.0.0.1", "localhost")
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


async def test_a_server_is_known_by_its_authority_and_its_name(with_tls: str, authorities: Path) -> None:
    await emptied(with_tls)
    encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    ours = f"sslmode=verify-full&sslrootcert={authorities / 'ours.crt'}"
    assert await said(f"{with_tls}?sslmode=disable", encrypted) == "False"
    assert await said(f"{with_tls}?sslmode=require", encrypted) == "True"
    assert await said(f"{with_tls}?{ours}", encrypted) == "True"
    by_address = with_tls.replace("localhost", "127.0.0.1")
    assert await said(f"{by_address}?{ours.replace('full', 'ca')}", encrypted) == "True"
    for refused in (f"{by_address}?{ours}", f"{with_tls}?{ours.replace('ours', 'other')}"):
        with pytest.raises(LedgerUnavailable) as caught:
            await said(refused, "SELECT 1")
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
