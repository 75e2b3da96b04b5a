"""What mkdocs does to a page before it is rendered: fills in what is generated, and points links into the site.

A line `{{ NAME ARGUMENTS }}` is replaced by what the function of that name returns, indented as the line was. Documents
link to each other as files of the repository, so that they can be read there too.
"""

import posixpath
import re
from collections.abc import Callable
from typing import Any

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from sources import ROOT, source

BESIDE_DOCS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Documents at the root of the repository, and where they are in the site."""

FILES = "files"
"""The site's folder of what documents link to and is no document."""

DIRECTIVE = re.compile(r"^([ ]*)\{\{ (\w+)((?: [^\s{}]+)*) \}\}$", re.M)
LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")

Directive = Callable[..., str]
DIRECTIVES: dict[str, Directive] = {
    "source": source,
    "http": reference.http,
    "metrics": reference.metrics,
    "settings": reference.settings,
    "commands": reference.commands,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, uri in BESIDE_DOCS.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    origin = next((name for name, uri in BESIDE_DOCS.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")

    def pointed(link: re.Match[str]) -> str:
        before, target, after = link.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if not (ROOT / path).is_file():
            return link[0]  # mkdocs says that it leads nowhere
        return before + posixpath.relpath(_in_site(path, files, config), posixpath.dirname(page.file.src_uri)) + after

    return DIRECTIVE.sub(_filled, LINK.sub(pointed, markdown))


def _in_site(path: str, files: Files, config: MkDocsConfig) -> str:
    """Where a file of the repository is in the site; it comes there, if it isn't there yet."""
    if path in BESIDE_DOCS:
        return BESIDE_DOCS[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    uri = f"{FILES}/{path}"
    if files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return uri


def _filled(line: re.Match[str]) -> str:
    indent, name, arguments = line.groups()
    if name not in DIRECTIVES:
        raise ValueError(f"{line[0].strip()}: expected one of {', '.join(DIRECTIVES)}")
    text = DIRECTIVES[name](*arguments.split())
    return "\n".join(indent + each if each else "" for each in text.splitlines())
