"""Modules that the command loads before it runs."""

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
"""Extras, loaded only for a configuration that needs them."""

NEVER = {"multiprocessing", "pdb", "pytest", "unittest", "xml"}
"""Modules that cost time and memory, and are not used here."""


class Loaded(msgspec.Struct):
    """State of a new process after the import."""

    modules: set[str]
    collects: bool
    frozen: int


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """A process that has imported the command."""
    run = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True)
    return msgspec.json.decode(run.stdout, type=Loaded)


def test_extras_are_not_loaded_without_need(loaded: Loaded) -> None:
    """An installed extra that is not used does not slow the start."""
    assert not ASKED_FOR & loaded.modules
    assert not NEVER & loaded.modules


def test_the_console_is_not_loaded_without_need(loaded: Loaded) -> None:
    """A process that serves no console starts sooner, and has less memory at rest."""
    assert not {"gateway.console.console", "jinja2"} & loaded.modules


def test_imported_objects_are_frozen(loaded: Loaded) -> None:
    """The garbage collector skips imported objects, and no others."""
    assert loaded.collects
    assert loaded.frozen > 10_000
