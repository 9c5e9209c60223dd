from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import Failure
from services.providers.base import Notes
from services.providers.translate import reasoning_state
from services.providers.translate.reasoning_state import (
    Details,
    Redacted,
    SealedCall,
    Text,
    Thought,
    pack,
    unpack,
)
from tests.services.providers.targets import told

BLOCKS = st.lists(
    st.builds(Thought, text=st.text(), signature=st.text())
    | st.builds(Redacted, data=st.text())
    | st.builds(Text, length=st.integers(0, 10**9))
    | st.builds(SealedCall, id=st.text())
)


@given(BLOCKS)
def test_comes_back_as_it_went(blocks: list[reasoning_state.Block]) -> None:
    """What was packed is unpacked, in order, from a string that any client keeps."""
    state = pack("anthropic", blocks)
    assert state.isascii()
    assert state.replace("-", "").replace("_", "").isalnum()
    notes = Notes(strict=True)
    assert list(unpack(state, "anthropic", notes)) == blocks


def test_details_are_kept_bytewise() -> None:
    """A dialect's own form comes back unchanged."""
    details = Details(json=msgspec.Raw(b'[{"type":"reasoning.text","index":0}]'))
    (block,) = unpack(pack("openrouter", [details]), "openrouter", Notes())
    assert isinstance(block, Details)
    assert bytes(block.json) == bytes(details.json)


def test_nothing_is_nothing() -> None:
    """No state is no blocks, and no error."""
    assert unpack("", "anthropic", Notes()) == ()


def test_another_dialect_is_left_out() -> None:
    """Reasoning that another provider sealed is dropped with a note."""
    notes = Notes()
    assert unpack(pack("openrouter", [Text(length=1)]), "anthropic", notes) == ()
    assert told(notes) == {"messages": "dropped"}


def forged(data: bytes) -> str:
    """A string in our alphabet that holds anything."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "state",
    [
        "!",
        "äöü",
        "AAAAA",
        forged(b"{}"),
        forged(b"\xff\xff"),
        forged(b"[" * 100_000),
        forged(b'{"v":2,"dialect":"anthropic","blocks":[]}'),
        forged(b'{"v":1,"dialect":"anthropic","blocks":[{"type":"new"}]}'),
        forged(b'{"v":1,"dialect":"anthropic","blocks":[{"type":"text","length":"1"}]}'),
        "A" * (reasoning_state.STATE_MAX + 1),
    ],
)
def test_refuses_what_is_not_ours(state: str) -> None:
    """Anything that `pack` did not make is an invalid field, never a crash."""
    with pytest.raises(Failure) as refused:
        unpack(state, "anthropic", Notes())
    assert (refused.value.param, refused.value.reason) == ("reasoning_state", "INVALID_FIELD")


def test_is_bounded() -> None:
    """More reasoning than may be sent back is not given out."""
    huge = Thought(text="x" * reasoning_state.STATE_MAX, signature="s")
    assert pack("anthropic", [huge]) == ""
