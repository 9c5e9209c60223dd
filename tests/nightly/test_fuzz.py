"""The fuzzers, the short form, and the corpus."""

from __future__ import annotations

import random

from tests.nightly.fuzz import CORPUS, TARGETS, fuzz


def test_the_corpus_is_read() -> None:
    """The inputs of earlier findings are read or refused."""
    for name, readers in TARGETS.items():
        for path in (CORPUS / name).iterdir():
            for read in readers:
                read(path.read_bytes(), random.Random(1))  # noqa: S311


def test_malformed_input_is_refused_and_nothing_else() -> None:
    """Twenty thousand inputs, the same each time."""
    fuzz(20_000, seed=1)
