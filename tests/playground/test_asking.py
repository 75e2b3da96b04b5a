"""A question with a budget, asked in a real browser, in front of the stand-in for vLLM."""

import re

import pytest
from playwright.async_api import expect

from kinetics_serve.observability.numbers import for_people
from tests.browser import OpenPage
from tests.fake_vllm import FakeVllm
from tests.playground.pages import ask, ask_to_the_end, asked_for, planned


async def test_lanes_and_the_gauge_grow_while_samples_run(url: str, torn: FakeVllm, open_page: OpenPage) -> None:
    torn.token_s, torn.tokens = 0.5, 250  # longer than anybody looks
    page = await open_page(url)
    await planned(page)
    await ask(page)
    lane, gauge = page.locator(".lane").first, page.get_by_role("meter")
    seen: set[str] = set()
    for _ in range(3):  # each of them later than the one before
        await expect(lane).not_to_contain_text(re.compile("|".join([r"\b0 tokens", *seen])))
        tokens = re.search(r"\d+ token", await lane.inner_text())
        assert tokens is not None
        seen.add(rf"\b{tokens[0]}")
    assert await lane.locator(".fill").evaluate("fill => parseFloat(fill.style.width)") > 0
    assert await gauge.locator(".memory").evaluate("part => parseFloat(part.style.width)") > 0
    assert await gauge.locator(".reserved").evaluate("part => parseFloat(part.style.width)") > 0
    await expect(page.locator("#status")).to_have_text("4 running, 0 finished")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("#status")).to_contain_text("Stopped")
    await expect(page.get_by_role("button", name="Stop")).to_be_disabled()


async def test_the_page_tells_what_the_bill_says(url: str, torn: FakeVllm, open_page: OpenPage) -> None:
    page = await open_page(url)
    await planned(page)
    bill = await ask_to_the_end(page)
    assert len(bill["votes"]) == 2
    leader = bill["votes"][0]
    bars = page.locator("#vote-bars li")
    await expect(bars).to_have_count(2)
    await expect(bars.first).to_contain_text(f"{leader['answer']}{leader['count']} votes")
    await expect(page.locator("#answer-text")).to_contain_text(f"The answer is {leader['answer']}.")
    await expect(page.locator("#spent-text")).to_contain_text(f"{for_people(bill['spent_eflops'])} of")
    assert await page.get_by_role("meter").get_attribute("aria-valuenow") == str(
        round(100 * bill["spent_eflops"] / bill["budget_eflops"])
    )
    compute = bill["compute_flops"]
    await expect(page.locator("#compute")).to_have_text(for_people(compute))
    await expect(page.locator("#memory")).to_have_text(for_people(bill["spent_eflops"] - compute))
    await expect(page.locator(".lane")).to_have_count(bill["samples_started"])
    for sample in bill["samples"]:
        lane = page.locator(".lane").nth(sample["index"])
        await expect(lane).to_contain_text(f"votes {sample['answer']}" if sample["answer"] else "no vote")
        await expect(lane).to_contain_text(f"{sample['tokens']} tokens")
    for amount in bill["saved"].values():
        await expect(page.locator("#saved-bars")).to_contain_text(for_people(amount))


async def test_the_moment_of_consensus_is_shown(url: str, vllm: FakeVllm, open_page: OpenPage) -> None:
    vllm.word = lambda seed: "The answer is 56. "
    page = await open_page(url)
    await planned(page)
    bill = await ask_to_the_end(page)
    assert bill["stop_reason"] == "consensus"
    await expect(page.locator("#verdict")).to_have_text(re.compile(r"^Consensus after [\d.]+ s, 97 % sure: 4 of 4"))
    mark = page.locator("#gauge .mark")
    await expect(mark).to_be_visible()
    at = await mark.evaluate("mark => parseFloat(mark.style.insetInlineStart)")
    assert at == pytest.approx(100 * bill["spent_eflops"] / bill["budget_eflops"], abs=0.01)
    assert bill["saved"]["early_stop_eflops"] > 0
    await expect(page.locator("#saved-text")).to_contain_text("was saved")


async def test_a_sample_without_a_vote_says_why(url: str, vllm: FakeVllm, open_page: OpenPage) -> None:
    vllm.word = lambda seed: " "
    page = await open_page(url)
    await planned(page)
    await ask(page)
    await expect(page.locator("#no-votes")).to_have_text("32 samples without a vote: each says nothing")
    await expect(page.locator(".lane").first).to_contain_text("no vote: it says nothing")


async def test_what_models_say_is_text(url: str, vllm: FakeVllm, open_page: OpenPage) -> None:
    vllm.word, vllm.tokens = lambda seed: "<img src=x onerror=alert(1)>", 1
    page = await open_page(url)
    await planned(page)
    await ask_to_the_end(page)
    await expect(page.locator("#answer-text")).to_have_text("<img src=x onerror=alert(1)>")
    assert await page.locator("main img").count() == 0


async def test_a_refusal_is_told_in_the_servers_words(url: str, vllm: FakeVllm, open_page: OpenPage) -> None:
    page = await open_page(url)
    await planned(page)
    await page.get_by_label("KV budget").select_option("tokens")
    await expect(page.locator("#plan")).to_contain_text("runs without sparse attention")
    await ask(page)
    await expect(page.get_by_role("alert")).to_contain_text("runs without sparse attention")
    await page.get_by_text("More settings").click()
    await page.get_by_label("Options of the strategy").fill("{")
    await ask(page)
    await expect(page.get_by_role("alert")).to_contain_text("no JSON")


@pytest.mark.parametrize(("unit", "least", "most"), [("samples", 1, 32), ("eflops", 1e7, 1e12), ("tokens", 16, 8192)])
async def test_the_slider_states_the_budget(
    url: str, vllm: FakeVllm, open_page: OpenPage, unit: str, least: float, most: float
) -> None:
    page = await open_page(url)
    await planned(page)
    await page.get_by_label("Stated in").select_option(unit)
    slider = page.get_by_role("slider", name="Budget")
    stated = []
    for key in ("Home", "End"):
        await slider.press(key)
        body = await asked_for(page)
        assert body["kinetics"]["budget"].keys() == {unit}
        stated.append(body["kinetics"]["budget"][unit])
        await expect(page.locator("#answer")).to_be_visible()  # so even the least is enough
    assert least <= stated[0] < stated[1] <= most


async def test_where_an_hour_has_a_price_the_budget_may_be_money(
    priced: str, url: str, vllm: FakeVllm, open_page: OpenPage
) -> None:
    page = await open_page(priced)
    await expect(page.locator("#plan")).to_contain_text("$")
    await page.get_by_label("Stated in").select_option("dollars")
    slider = page.get_by_role("slider", name="Budget")
    await slider.press("ArrowRight")
    said = await slider.get_attribute("aria-valuetext") or ""
    bill = await ask_to_the_end(page)
    assert said.startswith(f"{bill['rounded']['budget_dollars']}, {for_people(bill['budget_eflops'])}")
    money = f"{bill['rounded']['spent_dollars']} of {bill['rounded']['budget_dollars']}"
    await expect(page.locator("#spent-text")).to_contain_text(money)
    free = await open_page(url)
    await planned(free)
    await expect(free.get_by_role("option", name="dollars")).to_have_count(0)


async def test_everything_that_is_chosen_is_asked_for(url: str, vllm: FakeVllm, open_page: OpenPage) -> None:
    vllm.kv_budget = None
    page = await open_page(url)
    await planned(page)
    await page.get_by_role("textbox", name="Question").fill("What is 2 + 2?")
    await page.get_by_label("Model").select_option("fake-2")
    await page.get_by_label("Strategy", exact=True).select_option("race")
    await page.get_by_label("KV budget").select_option("dense")
    await page.get_by_text("More settings").click()
    await page.get_by_label("Tokens of a sample").fill("64")
    await page.get_by_label("Samples, at most").fill("5")
    await page.get_by_label("Stop when so sure").fill("0.9")
    await page.get_by_label("Temperature").fill("0.3")
    await page.get_by_label("Options of the strategy").fill('{"deciding_votes": 2}')
    body = await asked_for(page)
    assert body["messages"] == [{"role": "user", "content": "What is 2 + 2?"}]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("fake-2", 64, 0.3)
    assert body["kinetics"] == {
        "budget": {"samples": 8},
        "strategy": "race",
        "kv_budget": "dense",
        "max_samples": 5,
        "stop_confidence": 0.9,
        "strategy_options": {"deciding_votes": 2},
        "include_samples": True,
    }


async def test_stopping_leaves_nothing_running(url: str, torn: FakeVllm, open_page: OpenPage) -> None:
    torn.token_s, torn.tokens = 0.5, 250
    page = await open_page(url)
    await planned(page)
    await ask(page)
    await expect(page.locator(".lane")).to_have_count(4)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("#status")).to_contain_text("Stopped")
    await expect(page.locator("#reserved")).to_have_text("0")
    await expect(page.locator(".lane").first).to_contain_text("it was cancelled when the request ended")
    for _ in range(600):
        if torn.aborted == 4:
            break
        await page.wait_for_timeout(50)
    assert torn.aborted == 4


async def test_a_setting_that_is_folded_away_and_wrong_is_shown(url: str, vllm: FakeVllm, open_page: OpenPage) -> None:
    page = await open_page(url)
    await planned(page)
    sure = page.get_by_label("Stop when so sure")
    await page.get_by_text("More settings").click()
    await sure.fill("0.975")
    await page.get_by_text("More settings").click()
    assert (await ask_to_the_end(page))["stop_reason"]
    await page.get_by_text("More settings").click()
    await sure.fill("2")
    await page.get_by_text("More settings").click()
    await expect(sure).to_be_hidden()
    await ask(page)
    await expect(sure).to_be_focused()
