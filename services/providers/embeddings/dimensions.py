"""Dimensions of vectors: what a request asks for, and what a model can give."""

from __future__ import annotations

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import Target
from services.providers.embeddings.base import limits_of

PARAM = "dimensions"


def sent_dimensions(dimensions: int | None, target: Target) -> int | None:
    """Return the number of dimensions to ask a target for. None: it needs no parameter.

    Raises Failure UNSUPPORTED_FEATURE: the model has no such vectors.
    """
    if dimensions is None:
        return None
    limits = limits_of(target)
    if limits.dimensions:
        if dimensions not in limits.dimensions:
            numbers = ", ".join(map(str, sorted(limits.dimensions)))
            raise _unsupported(f"The vectors of this model have {numbers} dimensions.")
        if len(limits.dimensions) == 1:
            return None
    elif limits.dimensions_max and dimensions > limits.dimensions_max:
        message = f"The vectors of this model have at most {limits.dimensions_max} dimensions."
        raise _unsupported(message)
    if PARAM in target.capabilities.rejects or PARAM in target.channel.quirks.drops:
        raise _unsupported("The dimensions of this model's vectors cannot be chosen.")
    return dimensions


def dimensions_parameter(target: Target) -> str:
    """Return the provider's name of the parameter."""
    return target.channel.quirks.renames.get(PARAM, limits_of(target).dimensions_parameter)


def _unsupported(message: str) -> Failure:
    return Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param=PARAM)
