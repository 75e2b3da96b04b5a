"""The page is usable by everybody: by keyboard, by screen reader, in the dark, on a phone."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser import NARROW, WIDE, OpenPage, accessibility, overflow
from tests.fake_vllm import FakeVllm
from tests.playground.pages import PICTURES, ask, ask_to_the_end, planned

LOOKS = [(WIDE, False), (WIDE, True), (NARROW, False), (NARROW, True)]


async def check(page: Page, name: str, size: tuple[int, int], dark: bool) -> None:
    look = f"{'wide' if size == WIDE else 'narrow'}-{'dark' if dark else 'light'}"
    await page.screenshot(path=PICTURES / f"{name}-{look}.png", full_page=True, animations="disabled")
    assert await accessibility(page) == []
    assert await overflow(page) <= 0


@pytest.mark.parametrize(("size", "dark"), LOOKS)
async def test_axe_finds_nothing_and_nothing_is_cut_off(
    calibrated: str, torn: FakeVllm, open_page: OpenPage, size: tuple[int, int], dark: bool
) -> None:
    torn.token_s, torn.tokens = 0.5, 250
    page = await open_page(calibrated, size, dark, calm=True)
    await planned(page)
    await page.get_by_text("More settings").click()
    await check(page, "start", size, dark)
    await page.get_by_text("More settings").click()
    await page.get_by_label("Strategy", exact=True).select_option("majority_vote")
    await ask(page)
    await expect(page.locator(".lane").first).to_contain_text("answer is")
    await check(page, "running", size, dark)
    await page.get_by_role("button", name="Stop").click()
    torn.token_s, torn.tokens = 0.01, 40
    await ask_to_the_end(page)
    await check(page, "answer", size, dark)


async def test_the_keyboard_is_enough(url: str, vllm: FakeVllm, open_page: OpenPage) -> None:
    page = await open_page(url)
    await planned(page)
    names = []
    for _ in range(14):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert await focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
        names.append(await focused.evaluate("node => node.id || node.textContent"))
        if names[-1] == "budget":
            await page.keyboard.press("ArrowRight")
        if names[-1] == "send":
            await page.keyboard.press("Enter")
            break
    order = ["question", "unit", "budget", "model", "strategy", "kv", "More settings", "key", "send"]
    assert [name for name in names if name in order] == order
    await expect(page.locator("#amount")).to_have_text("about 9 samples")
    await expect(page.locator("#answer")).to_be_visible()
    async with page.expect_request("**/v1/chat/completions"):
        await page.get_by_role("textbox", name="Question").press("Control+Enter")


async def test_a_screen_reader_hears_how_it_goes(url: str, torn: FakeVllm, open_page: OpenPage) -> None:
    page = await open_page(url)
    await planned(page)
    slider = page.get_by_role("slider", name="Budget")
    assert await slider.get_attribute("aria-valuetext") == "about 8 samples"
    await ask(page)
    status = page.get_by_role("status").filter(has_text=re.compile(r"running|Answered"))
    await expect(status).to_contain_text("Answered: 56.")
    await expect(status).to_contain_text("of the budget")
    assert "eFLOPs" in (await page.get_by_role("meter").get_attribute("aria-valuetext") or "")


@pytest.mark.parametrize("calm", [False, True])
async def test_nothing_moves_for_those_who_want_it_so(
    url: str, vllm: FakeVllm, open_page: OpenPage, calm: bool
) -> None:
    page = await open_page(url, calm=calm)
    part = page.locator("#gauge .compute")
    duration = await part.evaluate("part => parseFloat(getComputedStyle(part).transitionDuration)")
    assert (duration == 0) == calm
