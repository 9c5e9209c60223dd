"""Assets: style sheets, scripts and icons of the console, from memory."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath

from aiohttp import web

TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
PATH = "/console/static/"
_FOREVER = "public, max-age=31536000, immutable"
"""For URLs with the digest of what they return."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    media_type: str
    content: bytes
    compressed: bytes
    version: str
    """Changes with the content."""


def _read() -> Mapping[str, Asset]:
    found = {}
    for file in (resources.files(__package__) / "static").iterdir():
        content = file.read_bytes()
        found[file.name] = Asset(
            media_type=TYPES[PurePath(file.name).suffix],
            content=content,
            compressed=gzip.compress(content, mtime=0),
            version=hashlib.sha256(content).hexdigest()[:12],
        )
    return found


ASSETS = _read()


def url_of(name: str) -> str:
    """Return the URL of an asset, which browsers may keep for ever."""
    return f"{PATH}{name}?v={ASSETS[name].version}"


async def serve(request: web.Request) -> web.Response:
    """Answer with an asset."""
    asset = ASSETS.get(request.match_info["name"])
    if asset is None:
        raise web.HTTPNotFound
    headers = {"Cache-Control": _FOREVER} if request.query.get("v") == asset.version else {}
    body = asset.content
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        body = asset.compressed
        headers.update({"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
    return web.Response(body=body, content_type=asset.media_type, charset="utf-8", headers=headers)
