"""Whether the documents' links to elsewhere lead somewhere: `make links`, which needs the internet.

    python -m tests.outside_links [DOCUMENT ...] [--timeout S]

Prints each link that doesn't, with why and where it stands, and then exits with 1.
"""

import argparse
import asyncio
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import httpx
from tenacity import AsyncRetrying, stop_after_attempt, wait_exponential

from tests.documents import DOCUMENTS

TRIES = 3
AT_ONCE = 8
AS_A_BROWSER = {"user-agent": "Mozilla/5.0 (compatible; documentation links)"}
"""Some sites refuse what names itself a library."""


def links(documents: Iterable[Path]) -> dict[str, list[Path]]:
    """The outside links of Markdown, and the documents that each stands in."""
    found: dict[str, list[Path]] = defaultdict(list)
    for document in documents:
        for url in dict.fromkeys(re.findall(r"\]\((https?://[^)\s]+)\)", document.read_text())):
            found[url].append(document)
    return found


async def broken(urls: Iterable[str], timeout_s: float) -> dict[str, str]:
    """The links that can't be opened, and why. Each is tried three times; redirects are followed."""
    turn, wrong = asyncio.Semaphore(AT_ONCE), {}
    async with httpx.AsyncClient(timeout=timeout_s, follow_redirects=True, headers=AS_A_BROWSER) as client:

        async def look(url: str) -> None:
            try:
                async for attempt in AsyncRetrying(
                    stop=stop_after_attempt(TRIES), wait=wait_exponential(timeout_s / 10), reraise=True
                ):
                    with attempt:
                        async with turn, asyncio.timeout(timeout_s), client.stream("GET", url) as answer:
                            answer.raise_for_status()
            except httpx.HTTPStatusError as error:
                wrong[url] = str(error.response.status_code)
            except (TimeoutError, httpx.TimeoutException):
                wrong[url] = f"no answer in {timeout_s:g} s"
            except httpx.HTTPError as error:
                wrong[url] = repr(error)

        await asyncio.gather(*map(look, urls))
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("documents", type=Path, nargs="*", default=DOCUMENTS)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for each try")
    stated = parser.parse_args(arguments)
    found = links(stated.documents)
    wrong = asyncio.run(broken(found, stated.timeout))
    for url, why in sorted(wrong.items()):
        print(f"{url}: {why}, in {', '.join(map(str, found[url]))}")
    print(f"{len(found)} links, {len(wrong)} broken")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
