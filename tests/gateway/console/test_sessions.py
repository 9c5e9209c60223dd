from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.seal import SEALED_CHARS_MAX, Seal
from gateway.console.sessions import IDLE_TIMEOUT_S, LIFETIME_S, RENEWAL_S, Session, Sessions

SECRET = "first secret, of 32 characters or more"
OTHER_SECRET = "second secret, of 32 characters or more"
KEY = "sk-pg-key-of-a-tenant"
TOKEN = "token-of-the-operators-0123456789"
NOW = 1_800_000_000.0


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def sessions(time: Time) -> Sessions:
    return Sessions(SECRET, time)


@given(st.binary(max_size=2000))
def test_only_the_secret_opens_a_seal(plain: bytes) -> None:
    """Two seals of one text differ."""
    seal = Seal(SECRET, "a")
    text = seal.seal(plain)

    assert seal.unseal(text) == plain
    assert Seal(SECRET, "a").unseal(text) == plain
    assert Seal(OTHER_SECRET, "a").unseal(text) is None
    assert Seal(SECRET, "b").unseal(text) is None
    assert seal.seal(plain) != text


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_changed_seal_is_not_opened(plain: bytes, data: st.DataObject) -> None:
    """Any character may be changed, added or left out."""
    seal = Seal(SECRET, "a")
    text = seal.seal(plain)
    place = data.draw(st.integers(0, len(text) - 2))  # The last one has unused bits.
    char = "A" if text[place] != "A" else "B"

    assert seal.unseal(text[:place] + char + text[place + 1 :]) is None
    assert seal.unseal(text[:place] + text[place + 1 :]) is None
    assert seal.unseal(text[:place] + char + text[place:]) is None


@pytest.mark.parametrize("text", ["", "A", "é", "A" * 40, "!" * 80, "A" * (SEALED_CHARS_MAX + 1)])
def test_other_text_is_no_seal(text: str) -> None:
    """It is too short, too long, or in another alphabet."""
    assert Seal(SECRET, "a").unseal(text) is None


def test_a_cookie_hides_the_key(sessions: Sessions) -> None:
    """It holds the session, and shows nothing of it."""
    cookie = sessions.to_cookie(sessions.tenant(KEY))

    session = sessions.read(cookie, "")
    assert session is not None
    assert (session.role, session.key) == ("tenant", KEY)
    assert KEY not in cookie
    assert Sessions(OTHER_SECRET).read(cookie, "") is None


def test_an_idle_session_ends(sessions: Sessions, time: Time) -> None:
    """Use prolongs it, up to its lifetime."""
    cookie = sessions.to_cookie(sessions.tenant(KEY))
    time.now += IDLE_TIMEOUT_S + 1
    assert sessions.read(cookie, "") is None

    session: Session | None = sessions.tenant(KEY)
    began = time.now
    while session is not None:
        assert time.now - began <= LIFETIME_S
        cookie = sessions.to_cookie(session)
        time.now += IDLE_TIMEOUT_S
        session = sessions.read(cookie, "")
    assert time.now - began > LIFETIME_S


def test_an_ended_session_stays_ended(
    sessions: Sessions, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is remembered until its cookie expires. Others go on, and memory is bounded."""
    cookie = sessions.to_cookie(ended := sessions.tenant(KEY))
    other = sessions.to_cookie(sessions.tenant(KEY))
    sessions.end(ended)
    time.now += IDLE_TIMEOUT_S
    sessions.end(sessions.visitor())
    assert sessions.read(cookie, "") is None
    assert sessions.read(sessions.to_cookie(ended), "") is None
    assert sessions.read(other, "") is not None

    monkeypatch.setattr("gateway.console.sessions.ENDED_MAX", 2)
    sessions.end(sessions.visitor())
    assert sessions.read(sessions.to_cookie(ended), "") is not None


def test_a_session_in_use_is_renewed_once_a_minute(sessions: Sessions, time: Time) -> None:
    """A browser gets no cookie with every page."""
    session = sessions.tenant(KEY)
    assert not sessions.needs_renewal(session)

    time.now += RENEWAL_S
    assert sessions.needs_renewal(session)


def test_another_token_ends_the_sessions_of_operators(sessions: Sessions) -> None:
    """Without any token they end, too. The token itself is not in the session."""
    session = sessions.operator(TOKEN, "ann")
    cookie = sessions.to_cookie(session)

    assert sessions.read(cookie, TOKEN) is not None
    assert sessions.read(cookie, TOKEN + "x") is None
    assert sessions.read(cookie, "") is None
    assert TOKEN not in repr(session)
