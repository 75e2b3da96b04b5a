"""The playground in a real browser, in front of the real engine with the bundled model."""

from playwright.async_api import expect

from tests.browser import NARROW, PATIENCE_MS, accessibility, opening, overflow, running_chromium
from tests.e2e.conftest import MODEL, Server
from tests.playground.pages import PICTURES, ask_to_the_end, planned


async def test_a_question_is_answered_and_its_bill_is_shown(server: Server) -> None:
    async with running_chromium() as browser, opening(browser) as open_page:
        page = await open_page(server.url)
        await planned(page)
        await page.get_by_text("More settings").click()
        await page.get_by_label("Tokens of a sample").fill("48")
        await page.get_by_text("More settings").click()
        bill = await ask_to_the_end(page, 5 * PATIENCE_MS)
        assert bill["model"] == MODEL
        assert 0 < bill["spent_eflops"] <= bill["budget_eflops"]
        assert sum(sample["tokens"] for sample in bill["samples"]) == bill["completion_tokens"] > 0
        await expect(page.locator(".lane")).to_have_count(bill["samples_started"])
        await expect(page.locator("#vote-bars li")).to_have_count(len(bill["votes"]))
        await expect(page.locator("#answer-text")).not_to_be_empty()
        await page.screenshot(path=PICTURES / "model-wide.png")
        await page.emulate_media(color_scheme="dark")
        await page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
        await page.locator("#status").scroll_into_view_if_needed()
        await page.screenshot(path=PICTURES / "model-narrow.png")
        assert await accessibility(page) == []
        assert await overflow(page) <= 0
