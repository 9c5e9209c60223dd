"""Sessions stay at one channel and key, and only those of a lost target move."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from services.common.plain_metrics import PlainMetrics
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, Tool
from services.errors import UpstreamError
from services.providers.base import Target
from services.routing import affinity
from services.routing.affinity import BILLING_HEADER, REMEMBERED_S, SessionAffinity
from services.routing.choice import order_targets
from services.routing.health import ChannelHealth
from tests.services.routing.targets import target
from tests.stand.clock import FakeClock

KEYS = ("key-1", "key-2", "key-3")
SESSIONS = 10_000
TURNS = 8
GONE = UpstreamError(ErrorReason.UPSTREAM_ERROR, "no", retry_after_s=60)


def keyed(text: str) -> bytes:
    """Return the digest of a text as replicas with one secret make it."""
    return hashlib.sha256(b"secret" + text.encode()).digest()


def channel(name: str, weight: float = 1.0, keys: Sequence[str] = KEYS) -> list[Target]:
    """Return the targets of a channel, one for each of its keys."""
    return [target(name, weight=weight, keys=keys, key_number=n) for n in range(len(keys))]


class Replica:
    """The choice of one process."""

    def __init__(self, clock: FakeClock, *targets: Target) -> None:
        self.targets = targets
        self.health = ChannelHealth(clock)
        self.sessions = SessionAffinity(keyed, clock, PlainMetrics("test"))

    def answer(self, session: str, account: str = "acme") -> Target:
        """Answer a call of a session where it would be answered; return the target."""
        pin = self.sessions.pin(account, "public/m", session, ChatCompletionSpec(model="m"))
        chance = random.Random(1)  # noqa: S311 - which no session depends on
        first = next(order_targets(self.targets, self.health, chance, pin))
        pin.answered(first)
        return first

    def answers(self, sessions: Iterable[str]) -> dict[str, Target]:
        """Answer a call of each session."""
        return {session: self.answer(session) for session in sessions}

    def lose(self, channel: str) -> None:
        """Open the breakers of a channel for a minute."""
        for one in self.targets:
            if one.channel.name == channel:
                self.health.attempt_failed(one, GONE)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_sessions_stay_and_only_those_of_a_lost_channel_move(clock: FakeClock) -> None:
    """Two channels with three keys each: all turns stay, also after the channel is back."""
    replica = Replica(clock, *channel("a"), *channel("b"))
    sessions = [f"session-{number}" for number in range(SESSIONS)]
    before = replica.answers(sessions)
    for _ in range(TURNS - 1):
        clock.advance(30)
        assert replica.answers(sessions) == before

    shares = Counter((one.channel.name, one.key_number) for one in before.values())
    assert all(abs(share / SESSIONS - 1 / 6) < 0.02 for share in shares.values())

    replica.lose("a")
    during = replica.answers(sessions)
    assert {one.channel.name for one in during.values()} == {"b"}
    assert all(during[one] == before[one] for one in sessions if before[one].channel.name == "b")

    clock.advance(120)
    assert replica.health.available(before["session-0"])
    assert replica.answers(sessions) == during, "the channel's return moves no session"
    new = Counter(replica.answer(f"new-{n}").channel.name for n in range(2000))
    assert new["a"] > 900, "new sessions use it again"


def test_replicas_choose_alike_without_shared_state(clock: FakeClock) -> None:
    """Whatever order the configuration of each has."""
    targets = [*channel("a"), *channel("b"), *channel("c", weight=2)]
    one, other = Replica(clock, *targets), Replica(clock, *reversed(targets))
    sessions = [f"session-{number}" for number in range(500)]

    assert one.answers(sessions) == other.answers(sessions)


def test_weights_hold(clock: FakeClock) -> None:
    """A channel's share is that of its weight, within two in a hundred, whatever its keys."""
    targets = [*channel("heavy", 3, ["k"]), *channel("light", 1), *channel("reserve", 0)]
    placed = Replica(clock, *targets).answers(map(str, range(SESSIONS))).values()
    shares = Counter(one.channel.name for one in placed)

    assert abs(shares["heavy"] / SESSIONS - 0.75) < 0.02
    assert abs(shares["light"] / SESSIONS - 0.25) < 0.02
    assert not shares["reserve"]


def test_a_new_channel_takes_its_share_and_moves_no_other_session(clock: FakeClock) -> None:
    """A session that does not go to the new channel stays where it would be without it."""
    sessions = [str(number) for number in range(3000)]
    two = Replica(clock, *channel("a"), *channel("b")).answers(sessions)
    three = Replica(clock, *channel("a"), *channel("b"), *channel("c")).answers(sessions)

    moved = {one for one in sessions if two[one].channel.name != three[one].channel.name}
    assert {three[one].channel.name for one in moved} == {"c"}
    assert abs(len(moved) / len(sessions) - 1 / 3) < 0.05


def test_a_session_returns_once_it_has_been_idle(clock: FakeClock) -> None:
    """The provider's cache is cold by then, so it goes where every replica would send it."""
    replica = Replica(clock, *channel("a"), *channel("b"))
    session = next(name for name in map(str, range(99)) if replica.answer(name).channel.name == "a")
    home = replica.answer(session)
    replica.lose("a")
    elsewhere = replica.answer(session)

    clock.advance(REMEMBERED_S - 1)
    assert replica.answer(session) == elsewhere
    clock.advance(REMEMBERED_S + 1)
    assert replica.answer(session) == home


def test_a_failing_channel_gets_fewer_new_sessions(clock: FakeClock) -> None:
    """Its score still counts, but not its small changes."""
    replica = Replica(clock, *channel("good", keys=["k"]), *channel("slow", keys=["k"]))
    for _ in range(1000):
        replica.health.attempt_succeeded(replica.targets[0], 0.9)
        replica.health.attempt_succeeded(replica.targets[1], 3.9)
    shares = Counter(replica.answer(str(n)).channel.name for n in range(4000))

    assert 0.28 < shares["slow"] / 4000 < 0.38


def test_accounts_do_not_share_sessions(clock: FakeClock) -> None:
    """The same ID of two accounts are two sessions."""
    replica = Replica(clock, *channel("a"), *channel("b"))
    names = [str(number) for number in range(200)]

    same = sum(replica.answer(one) == replica.answer(one, "other") for one in names)
    assert same < 70


def test_priorities_come_before_sessions(clock: FakeClock) -> None:
    """A session leaves a channel of lower rank as soon as one of higher rank answers again."""
    replica = Replica(clock, target("first"), target("a", priority=1), target("b", priority=1))
    assert replica.answer("s").channel.name == "first"
    replica.lose("first")
    second = replica.answer("s")
    assert second.channel.priority == 1
    assert replica.answer("s") == second

    clock.advance(120)
    assert replica.answer("s").channel.name == "first"


def test_the_memory_of_sessions_is_bounded(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those without a call for longest are forgotten first."""
    monkeypatch.setattr(affinity, "SESSIONS_MAX", 3)
    replica = Replica(clock, *channel("a"), *channel("b"))
    for session in ("s1", "s2", "s3", "s1", "s4"):
        replica.answer(session)
    pins = {
        session: replica.sessions.pin("acme", "public/m", session, ChatCompletionSpec(model="m"))
        for session in ("s1", "s2", "s3", "s4")
    }

    assert {name: replica.sessions.place(pin.digest) is None for name, pin in pins.items()} == {
        "s1": False,
        "s2": True,
        "s3": False,
        "s4": False,
    }


def said(role: str, *texts: str) -> Message:
    """Return a message."""
    return Message(role=role, content=[TextPart(text=text) for text in texts])  # type: ignore[arg-type]


def test_a_conversation_without_a_name_is_known_by_its_beginning(clock: FakeClock) -> None:
    """Instructions, tools and the first message count; later turns and changing lines do not."""
    sessions = SessionAffinity(keyed, clock, PlainMetrics("test"))
    first = [said("system", "Be brief."), said("user", "Hello")]

    def digest(messages: list[Message], account: str = "acme", tool: str = "f") -> bytes:
        spec = ChatCompletionSpec(model="m", messages=messages, tools=[Tool(name=tool)])
        return sessions.pin(account, "m", "", spec).digest

    same = [
        [*first, said("assistant", "Hi"), said("user", "More")],
        [said("system", f"{BILLING_HEADER} cch=81;", "Be brief."), first[1]],
        [said("system", f"{BILLING_HEADER} cch=c0;", "Be brief."), first[1], said("user", "x")],
    ]
    other = [
        [said("system", "Be long."), first[1]],
        [first[0], said("user", "Bye")],
        [first[0], said("user", "x" * 70_000)],
    ]
    assert {digest(one) for one in same} == {digest(first)}
    assert len({digest(first), *map(digest, other)}) == 4
    assert digest(first) not in {digest(first, "other"), digest(first, tool="g")}
