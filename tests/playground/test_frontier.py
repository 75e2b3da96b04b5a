"""The frontier of a calibration, over HTTP and as the page draws it."""

import httpx
from playwright.async_api import expect

from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.planner.report import frontier_report
from tests.browser import OpenPage
from tests.fake_vllm import MODEL, FakeVllm
from tests.openapi_document import document_of, undescribed
from tests.playground.pages import ask_to_the_end, asked_for, planned


def test_the_frontier_is_what_no_cheaper_way_matches(calibrated: str, calibration: Calibration) -> None:
    answer = httpx.get(f"{calibrated}/v1/kinetics/frontier").json()
    assert undescribed(document_of(calibrated), "FrontierAnswer", answer) == []
    assert (answer["task"], answer["questions"], answer["hardware"]) == ("synthetic", 10, "paper-b200")
    points = answer["data"]
    assert len(points) == len(calibration.served)
    costs = [point["spent_eflops"]["mean"] for point in points]
    assert costs == sorted(costs)
    best = [point for point in points if point["on_frontier"]]
    assert best
    for point in points:
        better = [
            other
            for other in points
            if other["spent_eflops"]["mean"] <= point["spent_eflops"]["mean"]
            and other["accuracy"]["mean"] > point["accuracy"]["mean"]
        ]
        assert not (better and point["on_frontier"])
        assert better or any(other["accuracy"]["mean"] >= point["accuracy"]["mean"] for other in best)


def test_what_a_tenant_may_not_use_is_not_in_its_frontier(calibration: Calibration) -> None:
    assert frontier_report(calibration, lambda model: model != MODEL)["data"] == []


def test_a_server_without_a_calibration_says_how_to_get_one(url: str, vllm: FakeVllm) -> None:
    answer = httpx.get(f"{url}/v1/kinetics/frontier")
    assert answer.status_code == 404
    assert "--calibration" in answer.json()["error"]["message"]


async def test_the_request_stands_on_the_frontier_that_is_drawn(
    calibrated: str, calibration: Calibration, vllm: FakeVllm, open_page: OpenPage
) -> None:
    vllm.tokens, vllm.word = 40, lambda seed: "The answer is 56. "
    page = await open_page(calibrated)
    await planned(page)
    await expect(page.locator("#plan")).to_contain_text("Expected accuracy")
    await expect(page.locator("#frontier-chart .dot")).to_have_count(len(calibration.served))
    await expect(page.locator(".here-point")).to_have_count(0)
    await ask_to_the_end(page)
    await expect(page.locator(".here-point")).to_have_count(1)
    await expect(page.locator("#frontier-text")).to_contain_text("Your request spent")
    await page.get_by_text("The frontier as a table").click()
    await expect(page.locator("#frontier-table tbody tr").first).to_be_visible()


async def test_with_a_calibration_samples_are_drawn_as_it_recorded_them(
    calibrated: str, url: str, vllm: FakeVllm, open_page: OpenPage
) -> None:
    for server, temperature in ((url, 0.7), (calibrated, None)):
        page = await open_page(server)
        await planned(page)
        assert (await asked_for(page)).get("temperature") == temperature


async def test_with_a_calibration_a_budget_may_be_an_accuracy(
    calibrated: str, vllm: FakeVllm, open_page: OpenPage
) -> None:
    page = await open_page(calibrated)
    await planned(page)
    await page.get_by_label("Stated in").select_option("accuracy")
    slider = page.get_by_role("slider", name="Budget")
    await expect(slider).to_have_attribute("aria-valuetext", "50 %")
    await slider.press("End")
    await expect(page.locator("#plan")).to_contain_text("out of reach")
