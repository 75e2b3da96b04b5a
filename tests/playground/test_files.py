"""What the server serves of its pages, without a browser."""

import re
from collections.abc import Iterator

import httpx
import pytest

from kinetics_serve.answers.no_vote import NoVote
from kinetics_serve.api.app import create_app
from kinetics_serve.api.routes.playground import FOLDER, MEDIA_TYPES
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import FakeVllm
from tests.front_ends import listening

FILES = sorted(FOLDER.iterdir())
PAGES = {"index.html": "", "admin.html": "admin"}


@pytest.fixture(scope="module")
def administered(stand_in: FakeVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ledger = Ledger(Database(f"{tmp_path_factory.mktemp('files')}/ledger.db"))
    settings = Settings(admin_api_key="an-administrators-key")
    with listening(create_app([stand_in.url], PAPER_B200, settings=settings, ledger=ledger)) as url:
        yield url


@pytest.mark.parametrize("page", PAGES.values())
def test_the_pages_allow_nothing_but_their_own_files(administered: str, vllm: FakeVllm, page: str) -> None:
    answer = httpx.get(f"{administered}/{page}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_served_as_what_it_is(url: str, administered: str, vllm: FakeVllm, file: str) -> None:
    path = FOLDER / file
    if path.name == "admin.html":  # only where there is an administrator
        url = administered
    answer = httpx.get(f"{url}/{PAGES.get(path.name, f'playground/{path.name}')}")
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].startswith(MEDIA_TYPES[path.suffix])
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "admin.html", "..%2fapp.py", "%2e%2e/app.py"])
def test_nothing_else_is_served(url: str, vllm: FakeVllm, name: str) -> None:
    answer = httpx.get(f"{url}/playground/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_names_another_server(file: str) -> None:
    text = (FOLDER / file).read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"']*", text)) <= {"http://www.w3.org/2000/svg"}  # the name of a vocabulary


@pytest.mark.parametrize(("name", "script"), [("index.html", "main.js"), ("admin.html", "admin.js")])
def test_the_pages_have_no_script_or_style_in_their_markup(name: str, script: str) -> None:
    page = (FOLDER / name).read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>", page) == [f'<script type="module" src="playground/{script}">']
    assert "<style" not in page
    assert not re.findall(r"\s(style|on\w+)=", page)


def test_models_words_never_become_markup() -> None:
    for file in FOLDER.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", file.read_text()), file


def test_every_reason_for_having_no_vote_has_its_words() -> None:
    words = re.search(r"NO_VOTE = \{(.*?)\};", (FOLDER / "lanes.js").read_text(), re.S)
    assert words is not None
    assert set(re.findall(r"^\s+(\w+):", words[1], re.M)) == {reason.value for reason in NoVote}
