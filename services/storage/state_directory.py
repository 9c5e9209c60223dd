"""Checks of the state directory: only its owner, and root, may change the files in it.

Another user who can put a file or a link there could give the gateway a pepper or a database of
their own, or have it write elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from services.storage.base import StateError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def make_state_directory(state: Path, files: Iterable[str]) -> None:
    """Create the directory if it is missing, and check it and those of `files` that exist.

    Raise StateError: another user owns it, others can write to it, or a file is a link.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(state, state.stat())
        for name in files:
            _check_file(state / name)
    except OSError as error:
        raise StateError(f"{state}: {error.strerror}") from error


def _check_directory(state: Path, found: os.stat_result) -> None:
    if found.st_uid not in {os.geteuid(), 0}:
        raise StateError(
            f"{state} belongs to another user (uid {found.st_uid}): run as that user, or change "
            "its owner"
        )
    if found.st_mode & _WRITABLE_BY_OTHERS and not _is_volume(state, found):
        raise StateError(f"other users can write to {state}: run `chmod go-w {state}`")


def _is_volume(state: Path, found: os.stat_result) -> bool:
    """Whether the directory is a volume as Kubernetes mounts it: root's, and open to the pod.

    Only the pod's containers see it. The sticky bit tells it from /tmp.
    """
    return found.st_uid == 0 and not found.st_mode & stat.S_ISVTX and state.is_mount()


def _check_file(file: Path) -> None:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise StateError(f"{file} is a symbolic link: put the file itself there")
    if not stat.S_ISREG(mode):
        raise StateError(f"{file} is not a file")
