"""What tests do with the page."""

import json
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tests.browser import PATIENCE_MS

PICTURES = Path(__file__).parents[2] / "build" / "playground"
"""Screenshots: for people to look at, and the documents'."""

Json = dict[str, Any]


async def planned(page: Page) -> None:
    """Waits until the page is alive, and the server has said what the budget buys."""
    await expect(page.locator("#plan")).to_contain_text("eFLOPs")


async def ask(page: Page) -> None:
    await page.get_by_role("button", name="Ask", exact=True).click()


async def ask_to_the_end(page: Page, patience_ms: float = PATIENCE_MS) -> Json:
    """The bill of the answer."""
    await ask(page)
    await expect(page.locator("#status")).to_contain_text("Answered", timeout=patience_ms)
    bill: Json = json.loads(await page.locator("#bill").text_content() or "")
    return bill


async def asked_for(page: Page) -> Json:
    """The body that the page sends when it asks."""
    async with page.expect_request("**/v1/chat/completions") as request:
        await ask(page)
    body: Json = json.loads((await request.value).post_data or "")
    return body
