"""The playground: a page at `/` that asks this server, and its parts. Needs no key; what it asks for does."""

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "playground"
PAGE = "index.html"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Stated, as browsers run nothing else under `nosniff`, and what Python takes for a type depends on the machine."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""Nothing but the page's own files runs in it, and no other page may hold it in a frame."""

_PARTS = {file.name: file for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES and file.name != PAGE}


@router.get("/")
async def page() -> FileResponse:
    """The playground."""
    return _served(FOLDER / PAGE)


@router.get("/playground/{name}")
async def part(name: str) -> FileResponse:
    """One of its files."""
    if name not in _PARTS:
        raise HTTPException(404, "there is no such file")
    return _served(_PARTS[name])


def _served(file: Path) -> FileResponse:
    return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=HEADERS)
