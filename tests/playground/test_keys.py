"""The page in front of a server that keeps a ledger."""

from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from tests.browser import NARROW, OpenPage, accessibility, overflow
from tests.fake_vllm import FakeVllm
from tests.ledger.server import FrontEnd, front_end
from tests.playground.pages import PICTURES, ask_to_the_end, planned


@pytest.fixture(scope="module")
def server(stand_in: FakeVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    folder = tmp_path_factory.mktemp("keys")
    with front_end(stand_in, f"sqlite:///{folder}/ledger.db", folder, folder / "log") as running:
        yield running


async def test_the_page_opens_without_a_key_and_says_that_one_is_needed(
    server: FrontEnd, vllm: FakeVllm, open_page: OpenPage
) -> None:
    page = await open_page(server.url)
    await expect(page.get_by_role("alert")).to_contain_text("no API key")
    await page.get_by_role("textbox", name="API key").fill("sk-kinetics-wrong")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("alert")).to_contain_text("not valid")


async def test_a_key_is_enough_and_stays_in_its_tab(server: FrontEnd, vllm: FakeVllm, open_page: OpenPage) -> None:
    key = server.key("visitor", window_eflops=10**15)
    page = await open_page(server.url)
    await page.get_by_role("textbox", name="API key").fill(key)
    await page.keyboard.press("Tab")
    await planned(page)
    await expect(page.get_by_role("alert")).to_be_hidden()
    bill = await ask_to_the_end(page)
    assert sum(server.spent(key).values()) == bill["spent_eflops"]
    assert await page.evaluate("Object.values(sessionStorage)") == [key]
    assert await page.evaluate("localStorage.length") == 0
    assert await page.evaluate("document.cookie") == ""
    assert key not in page.url
    await page.reload()
    await planned(page)
    other = await open_page(server.url)
    await expect(other.get_by_role("alert")).to_contain_text("no API key")


@pytest.mark.parametrize("dark", [False, True])
async def test_the_usage_page_shows_the_keys_own_quota_and_spending(
    server: FrontEnd, vllm: FakeVllm, open_page: OpenPage, dark: bool
) -> None:
    key = server.key("frugal", window_eflops=10**15, month_eflops=None, concurrency=3)
    page = await open_page(f"{server.url}/#usage", dark=dark)
    await page.get_by_role("textbox", name="API key").fill(key)
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("#usage-status")).to_contain_text("Tenant frugal")
    await page.get_by_role("link", name="Ask").click()
    await planned(page)
    bill = await ask_to_the_end(page)
    await page.get_by_role("link", name="Usage").click()
    usage = page.locator("#usage")
    await expect(usage).to_contain_text(bill["strategy"])
    await expect(usage).to_contain_text("3 requests at once")
    await expect(usage).to_contain_text("no limit")
    await page.screenshot(path=PICTURES / f"usage-{'dark' if dark else 'light'}.png", full_page=True)
    await page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
    assert await accessibility(page) == []
    assert await overflow(page) <= 0
