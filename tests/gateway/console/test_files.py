"""The console's files: small, whole, and without anything that its policy forbids."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

import gateway.console
from gateway.console.assets import ASSETS

FOLDER = Path(gateway.console.__file__).parent
TEMPLATES = sorted(FOLDER.glob("templates/*.html"))
STATIC = sorted(FOLDER.glob("static/*"))

BYTES_MAX = 250_000
INLINE = re.compile(
    r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", re.IGNORECASE
)
OTHER_HOST = re.compile(r"(?:src|href|action|url|import|from)\s*[=(]?\s*[\"']?\s*(?:https?:)?//")


def test_all_files_are_small() -> None:
    """Compressed, the whole console has at most 250 kB."""
    sizes = [len(gzip.compress(path.read_bytes())) for path in (*TEMPLATES, *STATIC)]

    assert sum(sizes) < BYTES_MAX
    assert ASSETS.keys() == {path.name for path in STATIC}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_have_no_inline_scripts_or_styles(path: Path) -> None:
    """The Content-Security-Policy would drop them."""
    assert not INLINE.search(path.read_text("utf-8"))


@pytest.mark.parametrize("path", [*TEMPLATES, *STATIC], ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    """The edge serves all files. The namespace of SVG is a name, not an address."""
    text = path.read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")

    assert not OTHER_HOST.search(text)


def test_modules_import_what_exists() -> None:
    """No module waits for a file that is not served."""
    for path in FOLDER.glob("static/*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text("utf-8")):
            assert name in ASSETS


@pytest.mark.parametrize("planted", ['<p style="a">', "<style>", "<script>x", '<a onclick="x">'])
def test_a_planted_inline_part_is_found(planted: str) -> None:
    """The pattern matches each kind of inline part."""
    assert INLINE.search(planted)
