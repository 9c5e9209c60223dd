from __future__ import annotations

import json
from itertools import permutations

import pytest

from gateway.errors import ApiError
from gateway.surfaces.openai_completions.decode import SHARED, decode


def test_of_several_faults_the_first_in_the_body_is_named() -> None:
    """It is the same one in every process."""
    for first, second in permutations(sorted(SHARED), 2):
        body = {"model": "m", "prompt": "p", first: {"a": 1}, second: {"a": 1}}

        with pytest.raises(ApiError) as refused:
            decode(json.dumps(body).encode())

        assert str(refused.value.param).partition(".")[0] == first
