"""Secret files: secrets that the first start makes in the state directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from services.storage.state_directory import make_state_directory


def secret_of_state(state: Path, name: str) -> bytes:
    """Return the secret in this file of the state, which only its owner can read. Make it if new.

    Raise StateError: others can write in the directory. Raise OSError: the file cannot be read.
    """
    make_state_directory(state, [name])
    file = state / name
    if not file.exists():
        _create(file)
    return file.read_bytes().strip()


def _create(file: Path) -> None:
    """Write a new secret atomically."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_hex(32).encode())
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
