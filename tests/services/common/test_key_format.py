from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.key_format import PREFIX, checksum, well_formed

BODIES = st.text(string.ascii_letters + string.digits, min_size=43, max_size=43)


@given(BODIES)
def test_a_key_with_its_checksum_is_well_formed(body: str) -> None:
    """Whatever the random part is."""
    assert well_formed(PREFIX + body + checksum(body))


def test_the_checksum_is_crc32_in_base62() -> None:
    """Six digits, the most significant first: a fixed value, which whoever mints keys must meet."""
    assert checksum("0" * 43) == "2CZclj"


@given(BODIES, st.integers(0, 42), st.sampled_from(string.digits))
def test_one_wrong_character_is_noticed(body: str, place: int, digit: str) -> None:
    """A CRC finds every single error."""
    wrong = body[:place] + digit + body[place + 1 :]
    assert well_formed(PREFIX + wrong + checksum(body)) == (wrong == body)


@pytest.mark.parametrize(
    "token",
    ["", "sk-pg-", "sk-" + "0" * 49, "sk-pg-" + "0" * 49, "sk-pg-" + "0" * 43 + "2CZcl", "é" * 55],
)
def test_other_vendors_keys_are_not_ours(token: str) -> None:
    """Nor are pieces of ours."""
    assert not well_formed(token)
