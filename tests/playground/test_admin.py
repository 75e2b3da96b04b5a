"""The administrator's page, in front of a server that keeps a ledger."""

import re
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.async_api import Page, expect

from kinetics_serve.ledger import usage
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.observability.numbers import for_people
from tests.browser import NARROW, WIDE, OpenPage, accessibility, overflow
from tests.fake_vllm import MODEL, FakeVllm
from tests.ledger.server import QUESTION, FrontEnd, front_end
from tests.playground.pages import PICTURES

ADMIN = "an-administrators-key"
DAY_S = 86_400


@pytest.fixture(scope="module")
def server(stand_in: FakeVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    folder = tmp_path_factory.mktemp("admin")
    more = ("--admin-api-key", ADMIN, "--price-per-gpu-hour", "3.6")
    with front_end(stand_in, f"sqlite:///{folder}/ledger.db", folder, folder / "log", *more) as running:
        yield running


@pytest.fixture(scope="module")
async def peopled(server: FrontEnd) -> FrontEnd:
    """With tenants that have spent something on each of the last days."""
    now = time.time()
    ledger = Ledger(Database(server.ledger), clock=lambda: now)
    await ledger.set_tenant("research", {"month_eflops": 2 * 10**21, "request_eflops": 5 * 10**18, "models": [MODEL]})
    await ledger.set_tenant("search", {"window_eflops": 8 * 10**19, "concurrency": 16})
    await ledger.set_tenant("interns", {"window_eflops": 10**18, "window_s": 12 * 3600, "concurrency": 2})
    for name, uses in (("research", ("nightly",)), ("search", ("staging", "production")), ("interns", ("laptops",))):
        made = [(await ledger.create_key(name, use))[0] for use in uses]
        if len(made) > 1:
            await ledger.revoke_key(made[0].id)
    for ago in range(27, -1, -1):
        at = int(now) - ago * DAY_S - 1000  # of yesterday's, nothing is in the window of today
        daily = {"research": 2 * 10**19 * (ago * 7 % 5), "search": 10**19 * (5 + ago * 3 % 4), "interns": 10**18}
        for name, eflops in daily.items():
            tenant, strategy = await ledger.tenant(name), "self_consistency" if name == "research" else "majority_vote"
            async with ledger.database.write() as connection:
                await usage.book(connection, tenant, MODEL, strategy, eflops, 40, at)
    await ledger.close()
    return server


async def sign_in(page: Page, key: str = ADMIN) -> None:
    await page.get_by_label("Administrator's key").fill(key)
    await page.keyboard.press("Enter")


async def administration(open_page: OpenPage, server: FrontEnd, **look: object) -> Page:
    page = await open_page(f"{server.url}/admin", **look)
    await sign_in(page)
    await expect(page.get_by_role("heading", name="Tenants")).to_be_visible()
    return page


async def create_tenant(page: Page, name: str, **limits: str) -> None:
    """limits: by their labels, with _ for blanks."""
    await page.get_by_role("button", name="New tenant").click()
    await page.get_by_label("Name", exact=True).fill(name)
    for label, value in limits.items():
        await page.get_by_label(label.replace("_", " "), exact=True).fill(value)
    await page.get_by_role("button", name="Save limits").click()
    await expect(page.locator("#tenant-status")).to_have_text("Saved.")


async def create_key(page: Page, name: str) -> str:
    await page.get_by_label("What the key is for").fill(name)
    await page.get_by_role("button", name="Create key").click()
    await expect(page.locator("#made-key")).to_have_value(re.compile("^sk-kinetics-"))
    return await page.locator("#made-key").input_value()


async def test_a_tenant_from_its_first_key_to_its_last(server: FrontEnd, vllm: FakeVllm, open_page: OpenPage) -> None:
    page = await administration(open_page, server)
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await create_tenant(page, "search & <b>find</b>", eFLOPs_in_a_window="4e15", Requests_at_once="3")
    tenant = page.locator("#tenants tbody tr").filter(has_text="search & <b>find</b>")  # as text, and no markup
    await expect(tenant.get_by_role("meter")).to_have_count(1)
    key = await create_key(page, "production")
    await page.get_by_role("button", name="Copy").click()
    await expect(page.locator("#tenant-status")).to_have_text("Copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == key

    assert server.ask(key, QUESTION).status_code == 200
    spent = sum(server.spent(key).values())
    await page.get_by_role("button", name="Refresh").click()
    await expect(tenant).to_contain_text(f"{for_people(spent)} of 4 P eFLOPs")
    meter = tenant.get_by_role("meter")
    assert f"{for_people(spent)} of 4 P eFLOPs" in (await meter.get_attribute("aria-valuetext") or "")
    await expect(tenant).to_contain_text("$")
    await expect(page.locator("#spending-text")).to_contain_text(f"{for_people(spent)} eFLOPs, $")
    await expect(page.locator("#spending-chart rect.day")).to_have_count(1)
    await page.get_by_text("Spending as a table").click()
    await expect(page.locator("#spending-table tbody tr")).to_contain_text("pass_through")

    await page.get_by_role("button", name="Revoke key").click()
    await page.get_by_role("button", name="Keep it").click()
    await expect(page.get_by_role("dialog")).to_be_hidden()
    assert server.ask(key, QUESTION).status_code == 200
    await page.get_by_role("button", name="Revoke key").press("Enter")
    await expect(page.get_by_role("dialog")).to_contain_text("(production) of search & <b>find</b>?")
    await page.keyboard.press("Escape")  # is a no as well
    await expect(page.get_by_role("dialog")).to_be_hidden()
    assert server.ask(key, QUESTION).status_code == 200
    await page.get_by_role("button", name="Revoke key").click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(page.locator("#tenant-status")).to_contain_text("is revoked")
    assert server.ask(key, QUESTION).status_code == 401
    await expect(page.get_by_role("button", name="Revoke key")).to_have_count(0)


async def test_a_new_key_is_on_the_page_only_until_something_else_is(
    server: FrontEnd, vllm: FakeVllm, open_page: OpenPage
) -> None:
    page = await administration(open_page, server)
    await create_tenant(page, "once")
    key = await create_key(page, "")
    await page.get_by_role("button", name="Manage once").click()
    await expect(page.locator("#made")).to_be_hidden()
    assert await page.locator("#made-key").input_value() == ""
    assert key not in await page.content()
    assert await page.evaluate("Object.values(sessionStorage)") == [ADMIN]


async def test_limits_can_be_set_lifted_and_left_as_they_are(
    server: FrontEnd, vllm: FakeVllm, open_page: OpenPage
) -> None:
    exact = 4 * 10**29 + 1  # more digits than JavaScript's numbers have
    key = server.key("limited", window_eflops=exact, month_eflops=10**20, concurrency=2)
    page = await administration(open_page, server)
    await page.get_by_role("button", name="Manage limited").click()
    await expect(page.get_by_role("heading", name="limited")).to_be_focused()
    await page.get_by_label("eFLOPs in a month").fill("")
    await page.get_by_label("Hours of the window").fill("1.5")
    await page.get_by_label("eFLOPs of a request").fill("5e16")
    await expect(page.locator("#request_eflops-words")).to_have_text(re.compile(r"^50 P eFLOPs, \$[\d.]+$"))
    await page.get_by_label("Models").fill("a, b")
    await page.get_by_role("button", name="Save limits").click()
    await expect(page.locator("#tenant-status")).to_have_text("Saved.")
    assert server.usage(key)["limits"] == {
        "window_eflops": exact,
        "window_s": 5400,
        "month_eflops": None,
        "request_eflops": 5 * 10**16,
        "concurrency": 2,
        "models": ["a", "b"],
    }


async def test_a_mistake_is_told_in_the_servers_words(server: FrontEnd, vllm: FakeVllm, open_page: OpenPage) -> None:
    page = await administration(open_page, server)
    await page.get_by_role("button", name="New tenant").click()
    await page.get_by_label("Name", exact=True).fill("mistaken")
    await page.get_by_label("eFLOPs in a month").fill("much")
    await page.get_by_role("button", name="Save limits").click()
    await expect(page.get_by_role("alert")).to_contain_text("expected whole eFLOPs, such as 4e15")
    await page.get_by_label("eFLOPs in a month").fill("1e15")
    await page.get_by_role("button", name="Save limits").click()
    await expect(page.get_by_role("alert")).to_be_hidden()
    await expect(page.get_by_role("button", name="Manage mistaken")).to_be_visible()


async def test_only_the_administrators_key_opens_the_page_and_it_stays_in_its_tab(
    server: FrontEnd, vllm: FakeVllm, open_page: OpenPage
) -> None:
    page = await open_page(f"{server.url}/admin")
    for wrong in (server.key("somebody"), "wrong"):
        await sign_in(page, wrong)
        await expect(page.get_by_role("alert")).to_contain_text("not the administrator's key")
        await expect(page.locator("#signed-in")).to_be_hidden()
        assert await page.evaluate("sessionStorage.length") == 0
    await sign_in(page)
    await expect(page.get_by_role("heading", name="Tenants")).to_be_visible()
    assert await page.evaluate("localStorage.length") == 0
    assert await page.evaluate("document.cookie") == ""
    assert ADMIN not in page.url
    assert ADMIN not in await page.content()
    await page.reload()
    await expect(page.get_by_role("heading", name="Tenants")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#signed-in")).to_be_hidden()
    assert await page.evaluate("sessionStorage.length") == 0
    await page.reload()
    await expect(page.get_by_label("Administrator's key")).to_be_visible()


async def test_tenants_and_spending_are_found_by_name_and_time(
    server: FrontEnd, vllm: FakeVllm, open_page: OpenPage
) -> None:
    for name in ("finding-a", "finding-b"):
        assert server.ask(server.key(name), QUESTION).status_code == 200
    page = await administration(open_page, server)
    await page.get_by_label("Names with").fill("FINDING-B")
    await expect(page.locator("#tenants tbody tr")).to_have_count(1)
    await expect(page.locator("#tenants caption")).to_have_text("1 tenant")
    await page.get_by_label("Tenant", exact=True).select_option(label="finding-a")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("#spending-text")).to_contain_text("for 1 request.")
    await page.get_by_label("From (UTC)").fill("2001-01-01")
    await page.get_by_label("Until").fill("2001-01-31")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("#spending-text")).to_have_text("Nothing was spent in this time.")
    await expect(page.locator("#spending-chart svg")).to_have_count(0)


async def test_the_keyboard_is_enough(server: FrontEnd, vllm: FakeVllm, open_page: OpenPage) -> None:
    server.key("reachable")
    page = await administration(open_page, server)
    await expect(page.get_by_label("Names with")).to_be_focused()
    await page.keyboard.type("reachable")
    for name in ("New tenant", "Refresh", "Sign out", "Manage"):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert await focused.text_content() == name
        assert await focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="reachable")).to_be_focused()
    names = []
    for _ in range(8):
        await page.keyboard.press("Tab")
        names.append(await page.locator(":focus").evaluate("node => node.id || node.textContent"))
    limits = ["name", "window_eflops", "window_s", "month_eflops", "request_eflops", "concurrency", "models"]
    assert names == [*limits, "Save limits"]


@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (WIDE, True), (NARROW, False), (NARROW, True)])
async def test_axe_finds_nothing_and_nothing_is_cut_off(
    peopled: FrontEnd, vllm: FakeVllm, open_page: OpenPage, size: tuple[int, int], dark: bool
) -> None:
    page = await open_page(f"{peopled.url}/admin", size, dark, calm=True)
    assert await accessibility(page) == []
    await sign_in(page)
    await page.get_by_role("button", name="Manage search", exact=True).click()
    look = f"{'wide' if size == WIDE else 'narrow'}-{'dark' if dark else 'light'}"
    await page.screenshot(path=PICTURES / f"admin-{look}.png", full_page=True, animations="disabled")
    await create_key(page, "batches")
    await page.get_by_text("Spending as a table").click()
    assert await accessibility(page) == []
    assert await overflow(page) <= 0
    await page.get_by_role("button", name="Revoke key").first.click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    assert await accessibility(page) == []


def test_a_server_without_an_administrator_has_no_such_page(url: str, vllm: FakeVllm) -> None:
    answer = httpx.get(f"{url}/admin")
    assert answer.status_code == 404
    assert "KINETICS_ADMIN_API_KEY" in answer.json()["error"]["message"]
