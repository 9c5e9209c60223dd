from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.storage import sqlite_file, state_directory
from services.storage.base import StateError
from services.storage.pepper import FILE as PEPPER
from services.storage.pepper import load_pepper
from services.storage.sqlite import SqliteDatabase
from services.storage.state_directory import make_state_directory
from tests.stand.clock import FakeClock


async def open_state(state: Path) -> None:
    """Open database and pepper as the server does, and close them."""
    database = await SqliteDatabase.open(state, FakeClock())
    try:
        await load_pepper(state, {}, database)
    finally:
        await database.close()


async def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Its mode excludes other users, and it opens again."""
    state = tmp_path / "new" / "state"

    for _ in range(2):
        await open_state(state)

    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
async def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """The message says what to run; afterwards it opens."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)

    with pytest.raises(StateError, match=f"can write to {state}: run `chmod go-w {state}`"):
        await open_state(state)
    assert list(state.iterdir()) == []

    state.chmod(0o755)
    await open_state(state)


async def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may own it: root can do anything, anyway."""
    mine = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    if mine == 0:
        await open_state(tmp_path)
        os.chown(tmp_path, 65532, -1)
        mine = 65532

    with pytest.raises(StateError, match=f"belongs to another user \\(uid {mine}\\)"):
        await open_state(tmp_path)


@pytest.mark.parametrize("mode", [0o2777, 0o2775])
def test_a_volume_of_a_pod_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Kubernetes mounts it as root's, writable for the group or for all of the pod."""

    def found(uid: int, extra: int = 0) -> os.stat_result:
        return os.stat_result((0o40000 | mode | extra, 0, 0, 0, uid, 0, 0, 0, 0, 0))

    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    state_directory._check_directory(tmp_path, found(0))

    for refused in (found(65532), found(0, extra=0o1000)):
        with pytest.raises(StateError, match="can write"):
            state_directory._check_directory(tmp_path, refused)


@pytest.mark.parametrize("name", [*sqlite_file.FILES, PEPPER])
async def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    """Whether it leads to a file or nowhere; what it leads to stays as it is."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    await open_state(state)
    (state / name).unlink(missing_ok=True)
    (state / name).symlink_to(elsewhere)

    for content in (None, b"of somebody else"):
        if content is not None:
            elsewhere.write_bytes(content)
        with pytest.raises(StateError, match=f"{name} is a symbolic link"):
            await open_state(state)
        assert elsewhere.exists() is (content is not None)
    assert elsewhere.read_bytes() == b"of somebody else"


def test_a_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    """So is anything else that is no file."""
    (tmp_path / "lock").mkdir()

    with pytest.raises(StateError, match="lock is not a file"):
        make_state_directory(tmp_path, ["lock"])


async def test_a_pepper_that_is_given_may_be_a_link(tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links. The operator named the file."""
    (tmp_path / "secret").write_text("0123456789abcdef")
    (tmp_path / "link").symlink_to("secret")
    database = await SqliteDatabase.open(tmp_path / "state", FakeClock())
    try:
        await load_pepper(
            tmp_path / "state", {"POMOGATOR_PEPPER_FILE": str(tmp_path / "link")}, database
        )
    finally:
        await database.close()
