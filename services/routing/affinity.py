"""Session affinity: the calls of one session go to one channel and key, whose cache has the prompt.

Each session draws its targets by a weighted rendezvous hash of its digest, the channel and the key
(https://en.wikipedia.org/wiki/Rendezvous_hashing). So every replica makes the same choice without
shared state, and a target that comes or goes moves only its own sessions. Where an answer came from
another target, as after a failover, its session stays there until it has been idle for as long as
providers keep a cache.

Affinity orders the targets of a tier, and nothing else: priorities, breakers, limits and failover
are those of all calls.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from services.clock import Clock
from services.common.plain_metrics import PlainMetrics
from services.domain.conversation import Message, TextPart
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Target

REMEMBERED_S = 600.0
"""How long a session without calls is remembered."""
SESSIONS_MAX = 50_000
"""The most sessions that are remembered: those without calls for longest are forgotten."""
FINGERPRINT_CHARS = 65_536
"""Characters of a conversation's beginning that tell it from others."""

BILLING_HEADER = "x-anthropic-billing-header:"
"""Beginning of a line that Claude Code changes in each conversation, before its instructions."""

_Place: TypeAlias = tuple[str, int]
"""A channel's name and the number of its key."""


class _Answered(NamedTuple):
    """Place that the latest answer of a session came from."""

    place: _Place
    until: float


class SessionPin:
    """Targets of the calls of one session."""

    __slots__ = ("_affinity", "by_name", "digest")

    def __init__(self, affinity: SessionAffinity, digest: bytes, *, by_name: bool) -> None:
        self._affinity = affinity
        self.digest = digest
        self.by_name = by_name
        """Whether the caller named the session; else it is known by how its prompt begins."""

    def order(self, tier: Sequence[Target], scores: Sequence[float]) -> Sequence[Target]:
        """Return the targets of a tier in the order in which this session tries them."""
        remembered = self._affinity.place(self.digest)
        drawn = sorted(
            (_place(target) != remembered, _distance(self.digest, target, score), number)
            for number, (target, score) in enumerate(zip(tier, scores, strict=True))
        )
        return [tier[number] for *_, number in drawn]

    def remembers(self, target: Target) -> bool:
        """Return whether this process had the session's latest answer from the target."""
        return self._affinity.place(self.digest) == _place(target)

    def answered(self, target: Target) -> None:
        """Remember that an answer of the session began at the target."""
        self._affinity.remember(self.digest, _place(target))


class SessionAffinity:
    """Knows the sessions of all accounts, each by a digest, and where the latest answers began."""

    def __init__(
        self, digest: Callable[[str], bytes], clock: Clock, counters: PlainMetrics
    ) -> None:
        """`digest` is keyed, so that no caller can choose where it is sent."""
        self._digest = digest
        self._clock = clock
        self._answered: dict[bytes, _Answered] = {}
        self._outcomes = counters.counter(
            "session_answers_total",
            "Answers of sessions that are kept together: from the target of the latest answer, "
            "from another one, or the first in ten minutes.",
            "outcome",
        )
        for outcome in ("first", "kept", "moved"):
            _ = self._outcomes[(outcome,)]

    def pin(
        self, account: str, model: str, session_id: str, spec: ChatCompletionSpec
    ) -> SessionPin:
        """Return the pin of a call's session to a model, or else of its conversation."""
        text = session_id or "\0".join(_beginning(spec))
        kind = "session" if session_id else "conversation"
        digest = self._digest(f"{kind}\0{account}\0{model}\0{text}")[:16]
        return SessionPin(self, digest, by_name=bool(session_id))

    def place(self, digest: bytes) -> _Place | None:
        """Return where the latest answer of a session came from, if that is not long ago."""
        answered = self._answered.get(digest)
        if answered is None or answered.until < self._clock.now():
            return None
        return answered.place

    def remember(self, digest: bytes, place: _Place) -> None:
        """Remember where an answer of a session came from."""
        known = self.place(digest)
        outcome = "first" if known is None else "kept" if known == place else "moved"
        self._outcomes[(outcome,)].value += 1
        self._answered.pop(digest, None)  # So that it becomes the last one.
        self._answered[digest] = _Answered(place, self._clock.now() + REMEMBERED_S)
        if len(self._answered) > SESSIONS_MAX:
            del self._answered[next(iter(self._answered))]


def _beginning(spec: ChatCompletionSpec) -> Iterator[str]:
    """Yield the beginning of a conversation, which stays the same in each of its calls."""
    left = FINGERPRINT_CHARS
    for text in _first_texts(spec):
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _first_texts(spec: ChatCompletionSpec) -> Iterator[str]:
    """Yield instructions and first message of the user, then the tools."""
    for message in spec.messages:
        yield message.role
        yield from _texts(message)
        if message.role not in ("system", "developer"):
            break
    for tool in spec.tools:
        yield tool.name
        yield tool.description
        yield (tool.parameters_json or tool.other_json).decode("utf-8", "replace")


def _texts(message: Message) -> Iterator[str]:
    for part in message.content:
        if isinstance(part, TextPart) and not part.text.startswith(BILLING_HEADER):
            yield part.text


def _place(target: Target) -> _Place:
    return target.channel.name, target.key_number


def _distance(digest: bytes, target: Target, score: float) -> float:
    """Return the distance of a session from a target: of all targets it goes to the nearest.

    The nearest of several is each one by its share of the weights.
    """
    weight = target.weight * _step(score)
    if not weight:
        return math.inf
    told = f"{target.channel.name}\0{target.key.reveal()}".encode("utf-8", "surrogatepass")
    drawn = int.from_bytes(hashlib.blake2b(told, key=digest, digest_size=8).digest(), "big")
    return -math.log((drawn + 1) / (1 << 64)) / weight


def _step(score: float) -> float:
    """Return the score without its small changes, each of which would move sessions."""
    return min(1.0, 2.0 ** (math.floor(math.log2(score)) + 1))
