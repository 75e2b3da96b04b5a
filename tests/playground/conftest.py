"""A browser, and servers for it to visit."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count

import pytest
from playwright.async_api import Browser

from kinetics_serve.api.app import create_app
from kinetics_serve.planner.calibrate import calibrate
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.browser import OpenPage, opening, running_chromium
from tests.fake_vllm import MODEL, FakeVllm
from tests.front_ends import listening
from tests.synthetic import synthetic


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with running_chromium() as browser:
        yield browser


@pytest.fixture
async def open_page(chromium: Browser) -> AsyncIterator[OpenPage]:
    async with opening(chromium) as open_page:
        yield open_page


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    return calibrate([synthetic(questions=10, trials=8, max_tokens=200, model=MODEL)], PAPER_B200, repeats=2)


@pytest.fixture(scope="session")
def calibrated(stand_in: FakeVllm, calibration: Calibration) -> Iterator[str]:
    with listening(create_app([stand_in.url], PAPER_B200, settings=Settings(calibration=calibration))) as url:
        yield url


@pytest.fixture(scope="session")
def priced(stand_in: FakeVllm) -> Iterator[str]:
    with listening(create_app([stand_in.url], replace(PAPER_B200, dollars_per_hour=3.6))) as url:
        yield url


@pytest.fixture
def torn(vllm: FakeVllm) -> FakeVllm:
    """A model that gives another answer to every third sample, slowly enough to be watched."""
    asked = count()
    vllm.word = lambda seed: "The answer is 54. " if next(asked) % 3 == 2 else "The answer is 56. "
    vllm.token_s, vllm.tokens = 0.02, 40
    return vllm
