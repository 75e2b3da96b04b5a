"""Web pages may call the server only where an administrator allowed theirs."""

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200

PREFLIGHT = {"origin": "https://app.example", "access-control-request-method": "POST"}


def client(*origins: str) -> httpx.AsyncClient:
    app = create_app(["http://127.0.0.1:9"], PAPER_B200, settings=Settings(cors_origins=origins))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics")


@pytest.mark.parametrize("origins", [(), ("https://other.example",)])
async def test_a_page_that_was_not_allowed_may_not(origins: tuple[str, ...]) -> None:
    async with client(*origins) as browser:
        for answer in (
            await browser.options("/v1/chat/completions", headers=PREFLIGHT),
            await browser.get("/health", headers={"origin": "https://app.example"}),
        ):
            assert "access-control-allow-origin" not in answer.headers


async def test_a_page_that_was_allowed_may() -> None:
    async with client("https://app.example") as browser:
        answer = await browser.options("/v1/chat/completions", headers=PREFLIGHT)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in answer.headers
