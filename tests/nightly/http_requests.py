"""Random HTTP requests to every route of every listener: whatever they are, none is a fault.

    python -m tests.nightly.http_requests [--cases 100000] [--seed N]

Each begins as a valid request whose path, query, headers, cookies, form or body is changed, in any
number of ways. Its answer is no 5xx but those that the table of errors has, an error has the form
of its API, the log has no error, no answer is late, a good request is served afterwards, the
process does not grow, and the books are right.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from gateway.errors import ROWS
from gateway.surfaces.anthropic_messages.errors import TYPES
from tests.nightly import generated_cases
from tests.nightly.http_mutations import Change, Written, change, written
from tests.nightly.http_targets import HttpRequest, Targets
from tests.stand.console_stand import TOKEN
from tests.stand.gateway import Transport
from tests.stand.http_reader import Answer, exchange
from tests.stand.listeners_stand import MODELS, ListenersStand, listeners_stand, open_account
from tests.stand.operators import Operators

ANSWER_TIMEOUT_S = 20.0
ROUND = 100
"""Requests after which a good one must be served, and a new key is made."""
WARM_UP = 1000
MEMORY_MB_MAX = 150.0
"""The allowed growth of memory after the warm-up, with that of this client."""

STATUSES = {row.code: row.http for row in ROWS}
"""Statuses of errors by their codes."""
OPENAI_FORM = frozenset({"message", "type", "param", "code"})
ANTHROPIC_FORM = frozenset({"type", "message"})


class Attack:
    """Sends requests, and checks their answers."""

    def __init__(self, stand: ListenersStand, seed: int) -> None:
        self._stand = stand
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._targets = Targets(stand, self._chance)
        self._rounds = 0
        self._good_key = ""
        self.became: Counter[str] = Counter()
        self.faults: list[str] = []

    async def run(self, cases: int) -> None:
        """Send as many requests, and check what they leave."""
        _, self._good_key = await open_account(self._stand, "good")
        memory_mb = 0.0
        for number in range(cases):
            if number % ROUND == 0:
                await self._renew()
            if number == WARM_UP:
                memory_mb = _memory_mb()
            await self._one()
        await self._renew()
        if memory_mb and (grown_mb := _memory_mb() - memory_mb) > MEMORY_MB_MAX:
            self.faults.append(f"the process has grown by {grown_mb:.0f} MB")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            books = await Operators(self._stand.operators).settled()
        self.faults += [f"ledger: {finding}" for finding in books.findings]
        self.faults += [f"logged at the end: {each}" for each in self._stand.log.faults]

    async def _one(self) -> None:
        request = self._targets.request()
        sent = written(request, change(request, self._chance), self._chance)
        try:
            answer = await self._ask(request.listener, sent.data, sent.method)
        except TimeoutError:
            self._find("no answer in time", request, sent, None)
            return
        if fault := self._fault(request, sent, answer):
            self._find(fault, request, sent, answer)
        if answer is not None:
            self._learn(answer)
        self.became[str(answer.status) if answer else "closed"] += 1

    async def _ask(self, listener: str, data: bytes, method: str) -> Answer | None:
        host, _, port = self._stand.addresses[listener].rpartition(":")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await exchange(host, int(port), data, method)

    def _fault(self, request: HttpRequest, sent: Written, answer: Answer | None) -> str:
        """What is wrong with an answer; empty where nothing is."""
        if self._stand.log.faults:
            return f"logged: {self._stand.log.faults.pop()}"
        if answer is None or not answer.is_whole:
            return "" if Change.FRAMING in sent.changes else "no whole answer"
        if answer.status == 500 or b'"code":"internal_error"' in answer.body:
            return "a fault of the gateway"
        kind = answer.headers.get("content-type", "")
        is_page = "/console" in request.template and kind.startswith("text/html")
        if answer.status < 400 or sent.method == "HEAD" or is_page:
            return ""
        return _wrong_error(answer)

    def _learn(self, answer: Answer) -> None:
        """Keep IDs and page tokens of an answer for later requests."""
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        if is_json and 0 < len(answer.body) < 100_000:
            found = (text for text in texts(json.loads(answer.body)) if 3 < len(text) < 200)
            self._targets.seen += [text for text in found if "good" not in text][:20]
            del self._targets.seen[:-200]

    def _find(self, fault: str, request: HttpRequest, sent: Written, answer: Answer | None) -> None:
        got = f"{answer.status} {answer.body[:300]!r}" if answer else "no answer"
        self.faults.append(
            f"{request.listener} {request.method} {request.template}: {fault}\n"
            f"  sent {sent.data[:2000]!r}\n  got {got}"
        )

    async def _renew(self) -> None:
        """Make a new key of a new account, and check that a good request is served."""
        for model in MODELS:  # A request may have disabled its channel.
            name = model.removeprefix("house/")
            await self._serve("operators", f"/v1/operations/channels/{name}:enable", TOKEN, b"")
        self._rounds += 1
        account = f"acme-{self._rounds}"
        key_id, secret = await open_account(self._stand, account)
        self._targets.keys = {**dict(list(self._targets.keys.items())[-4:]), key_id: secret}
        self._targets.accounts = [*self._targets.accounts[-4:], account]
        await self._stand.sign_in("operator", TOKEN)
        await self._stand.sign_in("tenant", secret)
        body = {"model": MODELS[0], "messages": [{"role": "user", "content": "a"}]}
        await self._serve(
            "public", "/v1/chat/completions", self._good_key, json.dumps(body).encode()
        )

    async def _serve(self, listener: str, path: str, credential: str, body: bytes) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {credential}\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = await self._ask(listener, f"{head}{kind}".encode() + body, "POST")
        assert answer is not None
        assert answer.status == 200, answer


def _wrong_error(answer: Answer) -> str:
    """What is wrong with the answer of a failure."""
    try:
        body = json.loads(answer.body)
        error = body["error"]
        members, message = error.keys(), error["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "an error without a message"
    is_anthropic = body.get("type") == "error"
    form = ANTHROPIC_FORM if is_anthropic else OPENAI_FORM
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    if members != form or not message or not is_json or "x-request-id" not in answer.headers:
        return "an error in another form"
    status = None if is_anthropic else STATUSES.get(error["code"])
    is_known = answer.status < 500 or is_anthropic or status == answer.status
    return "" if is_known and answer.status in TYPES else "a status that the table does not have"


def texts(value: Any) -> Iterator[str]:
    """Yield all texts of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


def _memory_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


async def attack(cases: int, seed: int, transport: Transport, database_url: str = "") -> Attack:
    """Send as many requests to a new gateway."""
    with tempfile.TemporaryDirectory(prefix="pomogator-http-") as directory:
        async with listeners_stand(Path(directory), transport, database_url) as stand:
            run = Attack(stand, seed)
            await run.run(cases)
            return run


def check_cases(cases: int, seed: int) -> Mapping[str, int]:
    """Send as many requests, over each transport. Returns how many got each status."""
    return generated_cases.over_each_transport(attack, cases, seed)


if __name__ == "__main__":
    generated_cases.run(check_cases, __doc__)
