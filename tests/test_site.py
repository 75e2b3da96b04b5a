"""The site that `make docs` builds from the documents."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.commands.settings.options import ENV_PREFIX, Options
from kinetics_serve.observability.metrics import Metrics
from tests.arms import PAPER_B200
from tests.test_architecture import ROOT

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements that a browser fetches something for, and the attributes that say from where."""


def build(into: Path, config: Path = ROOT / "mkdocs.yml") -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(into)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        where = dict(attrs).get(FETCHED.get(tag, ""))
        if where is not None:
            self.fetched.append(where)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def text_of(page: Path) -> str:
    return "".join(_Page(page.read_text(encoding="utf-8")).texts)


def test_a_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        fetched = _Page(page.read_text(encoding="utf-8")).fetched
        assert not [where for where in fetched if where.startswith(("http:", "https:", "//"))], page
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert not re.findall(r"url\(['\"]?(?:https?:)?//", styles)


def test_every_directive_is_filled_in(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not re.search(r"^ *\{\{ \w+.*\}\}$", text_of(page), re.M), page


def test_the_reference_has_every_setting_metric_route_and_object(site: Path) -> None:
    reference = site / "reference"
    settings = text_of(reference / "settings.html")
    assert not [name for name in Options.model_fields if f"{ENV_PREFIX}{name.upper()}" not in settings]
    metrics, families = text_of(reference / "metrics.html"), [family.name for family in Metrics().registry.collect()]
    assert families
    assert not [name for name in families if name not in metrics]
    document = create_app(["http://localhost:1"], PAPER_B200).openapi()
    described = text_of(reference / "http.html")
    assert not [name for name in [*document["paths"], *document["components"]["schemas"]] if name not in described]


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    """By a page, and by a heading."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n\n[page](nowhere.md), [heading](#nowhere)\n")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    validation = re.findall(r"^validation:\n(?:  .*\n)+", settings, re.M)
    (tmp_path / "mkdocs.yml").write_text(f"site_name: A site\n{validation[0]}")
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#nowhere" in done.stderr
