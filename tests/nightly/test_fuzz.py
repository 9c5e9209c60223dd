"""The fuzzers, the short form, and the corpus."""

from __future__ import annotations

import random

import pytest

from tests.nightly.fuzz import CORPUS, TARGETS, fuzz


def test_the_corpus_is_read() -> None:
    """The inputs of earlier findings are read or refused."""
    for name, readers in TARGETS.items():
        for path in (CORPUS / name).iterdir():
            for read in readers:
                read(path.read_bytes(), random.Random(1))  # noqa: S311


@pytest.mark.parametrize("inputs", [5_000, pytest.param(20_000, marks=pytest.mark.nightly)])
def test_malformed_input_is_refused_and_nothing_else(inputs: int) -> None:
    """The inputs are the same each time."""
    fuzz(inputs, seed=1)
