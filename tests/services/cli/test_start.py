"""What the command loads before it runs."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

LOADED = """
import gc, json, sys
import services.cli
facts = {"modules": list(sys.modules), "collects": gc.isenabled(), "frozen": gc.get_freeze_count()}
print(json.dumps(facts))
"""

ASKED_FOR = {"asyncpg", "opentelemetry", "quicktok", "redis", "xllamacpp"}
"""Extras: a configuration names what needs them."""

NEVER = {"multiprocessing", "pdb", "pytest", "unittest", "xml"}
"""What would take time and memory, and serves nobody here."""


class Loaded(msgspec.Struct):
    """What a new process has after the import."""

    modules: set[str]
    collects: bool
    frozen: int


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """A process that has imported the command."""
    run = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True)
    return msgspec.json.decode(run.stdout, type=Loaded)


def test_nothing_is_loaded_for_others(loaded: Loaded) -> None:
    """Who does not use an extra does not wait for it, although it is installed."""
    assert not ASKED_FOR & loaded.modules
    assert not NEVER & loaded.modules


def test_garbage_is_looked_for_among_what_is_new(loaded: Loaded) -> None:
    """What was imported is left alone, and what comes after it is not."""
    assert loaded.collects
    assert loaded.frozen > 10_000
