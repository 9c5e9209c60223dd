from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.key_format import (
    ALPHABET,
    KEY_CHARS,
    PREFIX,
    checksum,
    new_secret,
    well_formed,
)

BODIES = st.text(string.ascii_letters + string.digits, min_size=43, max_size=43)


def test_new_keys_are_well_formed() -> None:
    """A new key has the documented form, and no two are the same."""
    made = {new_secret() for _ in range(1000)}

    assert len(made) == 1000
    assert all(well_formed(key) and len(key) == KEY_CHARS for key in made)


@given(BODIES)
def test_a_key_with_its_checksum_is_well_formed(body: str) -> None:
    """All random parts make a key."""
    assert well_formed(PREFIX + body + checksum(body))


def test_the_checksum_is_crc32_in_base62() -> None:
    """Six digits, most significant first: a fixed value, which other makers of keys must meet."""
    assert checksum("0" * 43) == "2CZclj"


@given(BODIES, st.integers(0, 42), st.sampled_from(string.digits))
def test_one_wrong_random_character_is_noticed(body: str, place: int, digit: str) -> None:
    """A CRC finds every single error."""
    wrong = body[:place] + digit + body[place + 1 :]
    assert well_formed(PREFIX + wrong + checksum(body)) == (wrong == body)


@given(position=st.integers(6, KEY_CHARS - 1), char=st.sampled_from(ALPHABET))
def test_a_typing_error_is_noticed(position: int, char: str) -> None:
    """One wrong character anywhere, also in the checksum, makes a key malformed."""
    key = new_secret()
    typo = key[:position] + char + key[position + 1 :]

    assert well_formed(typo) == (typo == key)


@given(st.text())
def test_other_text_is_not_well_formed(text: str) -> None:
    """The check takes any text, and takes none for a key by accident."""
    assert not well_formed(text)


@pytest.mark.parametrize(
    "token",
    ["", "sk-pg-", "sk-" + "0" * 49, "sk-pg-" + "0" * 49, "sk-pg-" + "0" * 43 + "2CZcl", "é" * 55],
)
def test_other_vendors_keys_are_not_ours(token: str) -> None:
    """Nor are pieces of our keys."""
    assert not well_formed(token)


@given(BODIES, st.integers(len(PREFIX), KEY_CHARS - 1))
def test_a_key_with_more_or_less_around_it_is_malformed(body: str, place: int) -> None:
    """Line ends, spaces, other cases, digits of other scripts and lone surrogates included."""
    key = PREFIX + body + checksum(body)
    around = [f"{key}\n", f" {key}", f"{key} ", key[:-1], PREFIX + key, key.upper()]
    inside = [key[:place] + char + key[place + 1 :] for char in "_- é\u0663\uff21\ud800"]

    assert not [token for token in around + inside if well_formed(token)]
