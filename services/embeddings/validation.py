"""Validation of a request: ranges and forms, as the contract defines them."""

from __future__ import annotations

from typing import get_args

from services.completions.validation import MODEL_CHARS_MAX, USER_CHARS_MAX
from services.domain.embeddings import EmbeddingRequest, EmbeddingSpec
from services.domain.spec import ParameterPolicy
from services.errors import invalid

POLICIES = frozenset(get_args(ParameterPolicy))
ENTRIES_MAX = 16_384
"""The most entries of a request."""
INPUT_TYPE_CHARS_MAX = 64


def validate(request: EmbeddingRequest) -> None:
    """Raise Failure INVALID_FIELD for the first field that breaks a rule."""
    spec = request.spec
    if request.parameter_policy not in POLICIES:
        raise invalid("parameter_policy", "`parameter_policy` has an unknown value.")
    if not spec.model:
        raise invalid("model", "`model` is missing.")
    if len(spec.model) > MODEL_CHARS_MAX:
        raise invalid("model", f"`model` has more than {MODEL_CHARS_MAX} characters.")
    _check_entries(spec)
    if spec.dimensions is not None and spec.dimensions < 1:
        raise invalid("dimensions", "`dimensions` must be at least 1.")
    for name, most in (("user", USER_CHARS_MAX), ("input_type", INPUT_TYPE_CHARS_MAX)):
        if len(getattr(spec, name)) > most:
            raise invalid(name, f"`{name}` has more than {most} characters.")


def _check_entries(spec: EmbeddingSpec) -> None:
    if spec.texts and spec.token_ids:
        raise invalid("input", "`input` has texts and token IDs: give one of them.")
    if not spec.entry_count:
        raise invalid("input", "`input` is empty: at least one entry is required.")
    if spec.entry_count > ENTRIES_MAX:
        raise invalid("input", f"`input` has more than {ENTRIES_MAX} entries.")
    for index, entry in enumerate(spec.texts or spec.token_ids):
        if not entry:
            raise invalid(f"input[{index}]", f"`input[{index}]` is empty.")
    for index, ids in enumerate(spec.token_ids):
        if min(ids) < 0:
            raise invalid(f"input[{index}]", f"`input[{index}]` has a negative token ID.")
