"""Random answers of providers at the level of HTTP: an answer is right, or an error of the table.

    python -m tests.nightly.upstream_answers [--cases 20000] [--seed N]

Each begins as a valid answer, whole or as a stream, in the form of a dialect or of embeddings. Its
status, headers, framing, coding, slices or body change, or it breaks off. What a caller gets of an
answer that arrived as it was is all of it; of one that broke off, its beginning and an error.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp

from services.config import ChannelConfig, Config, ModelConfig
from services.config.channels import BreakerConfig
from tests.nightly import generated_cases
from tests.nightly.answer_framing import Delivery, random_delivery
from tests.stand.fault_log import FaultLog, fault_log
from tests.stand.gateway import Gateway, Transport, running_config
from tests.stand.operators import Operators
from tests.stand.upstream import FakeUpstream, Request, Script
from tests.stand.upstream_forms import COUNT, DIALECTS, EMBEDDING, FORMS, PIECES, TEXT, said

ANSWER_TIMEOUT_S = 20.0
MODELS_EACH = 40
"""Models of each dialect: a failure may open the circuit breaker of one."""
TIMEOUT_S = 0.4
LATE = frozenset({"timeout_error", "upstream_timeout", "upstream_stalled"})
"""The ends of answers that a machine under load may read too late."""

SURFACES: Mapping[str, Mapping[str, Any]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/completions": {"prompt": "a"},
    "/messages": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 50},
    "/responses": {"input": "a"},
    "/messages/count_tokens": {"messages": [{"role": "user", "content": "a"}]},
    "/responses/input_tokens": {"input": "a"},
}
NATIVE = {"/messages/count_tokens": "anthropic", "/responses/input_tokens": "openai-responses"}
"""The dialects whose providers count prompts."""


@dataclass(slots=True)
class Case:
    """A request, and the answer to it."""

    path: str
    dialect: str
    streamed: bool
    delivery: Delivery | None = None


class Attack:
    """Asks, with changed answers, and checks what comes of them."""

    def __init__(self, gateway: Gateway, upstream: FakeUpstream, log: FaultLog, seed: int) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._log = log
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._case = Case("", "", streamed=False)
        self.became: Counter[str] = Counter()
        self.faults: list[str] = []
        upstream.play(self._answer)

    async def run(self, cases: int) -> None:
        """Ask as many times."""
        for _ in range(cases):
            await self._one()
            self._upstream.requests.clear()

    def _answer(self, request: Request) -> Script:
        case = self._case
        asked = request.json()
        form = FORMS[COUNT if case.path in NATIVE else case.dialect]
        body = form.stream if asked.get("stream") else form.document
        is_stream = bool(asked.get("stream"))
        case.delivery = random_delivery(body, self._chance, is_stream=is_stream)
        return case.delivery.script

    async def _one(self) -> None:
        chance = self._chance
        if chance.random() < 0.1:
            case = Case("/embeddings", EMBEDDING, streamed=False)
            body: dict[str, Any] = {"input": ["a", "b"]}
        else:
            path, dialect = chance.choice(list(SURFACES)), chance.choice(DIALECTS)
            if path == "/completions":
                dialect = "openai"  # Others have no older completions.
            dialect = NATIVE.get(path, dialect)
            case = Case(path, dialect, streamed=path not in NATIVE and chance.random() < 0.6)
            body = {**SURFACES[path], **({} if path in NATIVE else {"stream": case.streamed})}
        self._case = case
        body["model"] = f"house/{case.dialect}-{chance.randrange(MODELS_EACH)}"
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                status, content = await self._ask(case.path, body)
        except (TimeoutError, aiohttp.ClientError) as error:
            self._find(f"no whole answer: {error!r}", b"")
            return
        outcome = said(case.path, status, content, streamed=case.streamed)
        self.became[f"{case.path} {outcome.end}"] += 1
        lost = self._lost(outcome.text) if status == 200 and case.streamed else ""
        if fault := self._fault(outcome.end, outcome.text) or lost:
            self._find(f"{fault} ({outcome.end})", content)
        while self._log.faults:
            self._find(f"logged: {self._log.faults.pop()}", content)

    async def _ask(self, path: str, body: Any) -> tuple[int, bytes]:
        async with self._gateway.http.post(self._gateway.base_url + path, json=body) as answer:
            return answer.status, await answer.read()

    def _fault(self, end: str, text: str) -> str:
        """The fault of the outcome of a call. Empty: it has none."""
        delivery = self._case.delivery
        is_fault = end in {"internal_error", "endless"}
        if delivery is None or is_fault or end == "unreadable":
            return "" if not is_fault and self._passes_any(delivery) else "a fault of the gateway"
        if delivery.is_content_intact and not TEXT.startswith(text):
            return f"another text {text!r}"
        is_whole = end == "whole"
        if is_whole and delivery.is_content_intact and text != TEXT:
            return f"a part of the text as the whole {text!r}"
        if self._case.path in NATIVE:
            return "" if is_whole else "no estimate in place of a count that failed"
        if is_whole and delivery.is_broken:
            return "a broken answer as a whole one"
        is_failure = not is_whole and end not in LATE
        return "a right answer as a failure" if delivery.is_right and is_failure else ""

    def _lost(self, text: str) -> str:
        """What a caller should have got of a stream, whole events of which have arrived."""
        delivery = self._case.delivery
        if delivery is None or not delivery.is_content_intact or not delivery.least:
            return ""
        ends = [
            TEXT.index(piece) + len(piece) for piece in PIECES if _has_event(delivery.least, piece)
        ]
        return f"lost text: {text!r}" if len(text) < max(ends, default=0) else ""

    def _passes_any(self, delivery: Delivery | None) -> bool:
        """Whether what the provider says passes as it is, also where clients cannot read it.

        Without a delivery the provider was not asked: a circuit breaker was open.
        """
        if delivery is None:
            return True
        lanes = {"/messages": "anthropic", "/responses": "openai-responses"}
        is_raw = lanes.get(self._case.path) == self._case.dialect
        return is_raw and not delivery.is_content_intact

    def _find(self, fault: str, content: bytes) -> None:
        case = self._case
        script = case.delivery and case.delivery.shown
        self.faults.append(
            f"{case.path} {case.dialect} streamed={case.streamed}: {fault}\n"
            f"  provider {script}\n  got {content[:600]!r}"
        )


def _has_event(data: bytes, piece: str) -> bool:
    """Whether a whole event with the piece has arrived."""
    _, found, rest = data.partition(f'"{piece}"'.encode())
    return bool(found) and b"\n\n" in rest


def configuration(url: str) -> Config:
    """A channel of each dialect, and one of embeddings."""
    channels, models = [], []
    for name in (*DIALECTS, EMBEDDING):
        public = [f"house/{name}-{number}" for number in range(MODELS_EACH)]
        upstream = "text-embedding-3-small" if name == EMBEDDING else "m"
        channels.append(
            ChannelConfig(
                name=name,
                dialect="openai" if name == EMBEDDING else name,
                base_url=url,
                models=dict.fromkeys(public, upstream),
                breaker=BreakerConfig(failures=1_000_000, cooldown_s=0.01),
                progress_timeout_s=TIMEOUT_S,
                first_token_timeout_s=TIMEOUT_S,
                total_timeout_s=3.0,
            )
        )
        price = Decimal(1)
        models += [
            ModelConfig(name=each, prompt_usd_per_mtok=price)
            if name == EMBEDDING
            else ModelConfig(name=each, prompt_usd_per_mtok=price, completion_usd_per_mtok=price)
            for each in public
        ]
    return Config(channels=tuple(channels), models=tuple(models))


@asynccontextmanager
async def attacked(state: Path, transport: Transport, seed: int) -> AsyncIterator[Attack]:
    """A gateway whose books are right in the end."""
    async with FakeUpstream() as upstream:
        config = configuration(upstream.url)
        with fault_log() as log:
            async with (
                running_config(state, config, transport=transport) as gateway,
                gateway.service.operators_channel() as operators,
            ):
                attack = Attack(gateway, upstream, log, seed)
                yield attack
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    books = await Operators(operators).settled()
                attack.faults += [f"ledger: {finding}" for finding in books.findings]
        attack.faults += [f"logged: {each}" for each in log.faults]


async def attack(cases: int, seed: int, transport: Transport) -> Attack:
    """Ask as many times."""
    with tempfile.TemporaryDirectory(prefix="pomogator-answers-") as directory:
        async with attacked(Path(directory), transport, seed) as run:
            await run.run(cases)
        return run


def check_cases(cases: int, seed: int) -> Mapping[str, int]:
    """Ask as many times, over each transport. Returns how many calls of each API ended how."""
    return generated_cases.over_each_transport(attack, cases, seed)


if __name__ == "__main__":
    generated_cases.run(check_cases, __doc__)
