"""Parts of a request for embeddings."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.domain.embeddings import EmbeddingSpec
from services.embedding_limits import EmbeddingLimits
from services.embeddings.request_parts import split
from services.metering.tokens import estimate_text
from services.providers.base import Target


def target(**limits: Any) -> Target:
    """A target whose model has these limits."""
    return Target(
        channel=ChannelConfig(name="c", dialect="openai"),
        model="m",
        public_model="m",
        capabilities=Capabilities(embeddings=EmbeddingLimits(**limits)),
    )


@given(
    st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=30),
    st.integers(1, 10),
    st.integers(1, 60),
)
def test_parts_are_the_request_in_order(texts: list[str], entries: int, tokens: int) -> None:
    """No part has too many entries, or too many tokens unless it has one entry."""
    spec = EmbeddingSpec(model="m", texts=texts, user="u")
    parts = split(spec, [target(entries_max=entries, tokens_max=tokens)], as_numbers=False)

    assert [text for part in parts for text in part.spec.texts] == texts
    for part in parts:
        assert 1 <= len(part.spec.texts) <= entries
        assert part.tokens <= tokens or len(part.spec.texts) == 1
        assert part.tokens >= sum(map(estimate_text, part.spec.texts))
        assert part.spec.user == "u"


def test_each_target_takes_each_part() -> None:
    """So that any of them may answer it."""
    spec = EmbeddingSpec(model="m", texts=["a"] * 10)
    parts = split(spec, [target(entries_max=4), target(entries_max=3)], as_numbers=False)

    assert [len(part.spec.texts) for part in parts] == [3, 3, 3, 1]


def test_answers_as_numbers_are_smaller() -> None:
    """Numbers take four times the bytes of base64, and the size of an answer is limited."""
    spec = EmbeddingSpec(model="m", texts=["a"] * 2048, dimensions=4096)
    (in_base64,) = split(spec, [target(base64=True)], as_numbers=False)
    as_numbers = split(spec, [target(base64=True)], as_numbers=True)

    assert len(in_base64.spec.texts) == 2048
    assert len(as_numbers) == 4
