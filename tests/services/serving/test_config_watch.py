"""Reload of a configuration file that another program replaces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.serving.config_watch import watching_file
from services.telemetry.supervisor import Supervisor


class Mount:
    """A folder as the kubelet makes it: its files are replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.path = folder / "pomogator.toml"
        self.path.symlink_to("..data/pomogator.toml")

    def put(self, text: str) -> None:
        """Puts another version in the place of the last."""
        self._count += 1
        version = self._folder / f"..version_{self._count}"
        version.mkdir()
        (version / "pomogator.toml").write_text(text)
        link = self._folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self._folder / "..data")


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    """A mounted file in its first version."""
    mount = Mount(tmp_path)
    mount.put("first")
    return mount


@pytest.fixture
async def changes(mount: Mount) -> AsyncIterator[asyncio.Queue[str]]:
    """The file's content at each reported change."""
    told: asyncio.Queue[str] = asyncio.Queue()

    def changed() -> None:
        told.put_nowait(mount.path.read_text())

    async with watching_file(mount.path, b"first", changed, Supervisor(), interval_s=0.001):
        yield told


async def test_a_replaced_file_is_reported_once(mount: Mount, changes: asyncio.Queue[str]) -> None:
    """Each new content is reported once; a new version with the same content is not."""
    mount.put("second")
    assert await changes.get() == "second"

    mount.put("second")
    mount.put("third")
    assert await changes.get() == "third"
    assert changes.empty()


async def test_a_file_that_is_gone_has_not_changed(
    mount: Mount, changes: asyncio.Queue[str]
) -> None:
    """No change is reported while the file cannot be read; its next content is."""
    mount.path.rename(mount.path.with_name("elsewhere"))
    mount.put("second")
    assert changes.empty()

    mount.path.with_name("elsewhere").rename(mount.path)
    assert await changes.get() == "second"


async def test_a_change_before_the_watch_is_reported(mount: Mount) -> None:
    """A change between the read and the start of the watch is not lost."""
    told = asyncio.Event()

    async with watching_file(mount.path, b"zeroth", told.set, Supervisor(), interval_s=0.001):
        await told.wait()
