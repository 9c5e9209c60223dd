"""Random answers of providers, the short form."""

from __future__ import annotations

from tests.nightly.upstream_answers import check_cases


def test_an_answer_of_a_provider_is_right_or_an_error_of_the_table() -> None:
    """The same cases each time; `make nightly` tries more."""
    assert check_cases(200, seed=1).keys() >= {"/messages whole", "/embeddings whole"}
