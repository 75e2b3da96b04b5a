"""The pages: the playground at `/`, the administrator's at `/admin`. They need no key; what they ask for does."""

from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import FileResponse

from kinetics_serve.api.dependencies import administered

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "playground"
PAGE, ADMINISTRATION = "index.html", "admin.html"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Stated, as browsers run nothing else under `nosniff`, and what Python takes for a type depends on the machine."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""Nothing but the pages' own files runs in them, and no other page may hold them in a frame."""

_PARTS = {file.name: file for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES and file.suffix != ".html"}


@router.get("/")
async def page() -> FileResponse:
    """The playground."""
    return _served(FOLDER / PAGE)


@router.get("/admin", dependencies=[Depends(administered)])
async def administration() -> FileResponse:
    """The administrator's page, on a server that is administered over HTTP."""
    return _served(FOLDER / ADMINISTRATION)


@router.get("/playground/{name}")
async def part(name: str) -> FileResponse:
    """One of their files."""
    if name not in _PARTS:
        raise HTTPException(404, "there is no such file")
    return _served(_PARTS[name])


def _served(file: Path) -> FileResponse:
    return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=HEADERS)
