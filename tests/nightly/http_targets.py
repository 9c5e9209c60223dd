"""Valid requests to every route of every HTTP listener."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from gateway.app import TRANSCODED
from gateway.operators_app import SERVICES
from gateway.transcoding.bindings import Binding, bindings
from tests.stand.console_stand import TOKEN
from tests.stand.json_mutations import json_text
from tests.stand.listeners_stand import EMBEDDING_MODEL, MODELS, ListenersStand
from tests.stand.planted_messages import MESSAGES
from tests.stand.planted_requests import REQUESTS
from tests.stand.planted_responses import RESPONSES
from tests.stand.proto_json import message_json

FORM = "application/x-www-form-urlencoded"
FORM_FIELDS = (
    *("account", "action", "administers_account", "amount_usd", "call_id", "channel", "models"),
    *("concurrent_calls", "credit_id", "credit_usd", "display_name", "end_user", "expires"),
    *("expires_before", "hours", "key_id", "key_number", "markup_percent", "min_charge_usd"),
    *("model", "monthly_usd", "once_id", "outcome", "overlap_hours", "reason", "request_id"),
    *("requests_per_minute", "session_id", "since", "tokens_per_minute", "unlimited", "until"),
    *("after", "days", "group", "format", "reloaded", "key", "name", "language", "theme", "body"),
    *("surface", "request", "prompt", "tags", "tag", "kind", "timeout_s", "to", "next", "etag"),
)
ACTIONS = (
    *("credit", "debit", "markup", "create", "rotate", "revoke", "disable", "enable", "rename"),
    *("update", "test", "abort", "verify", "reload", "suspend", "open", "limit", "allow", "close"),
)
ODD_VALUES = (
    *("", "0", "1", "-1", "1e9", "2026-01-01", "9999-12-31", "a", "\0", "%", "ab", "9" * 40),
    *("\U0001f4a5", "<b>", "a\nb", "٣", "1.5", "0.000000001", "on", "ndjson", "ru", "dark"),
)
PARAMETER = re.compile(r"\{([^}=:]*)(?:[=:][^}]*)?\}")


@dataclass(slots=True)
class HttpRequest:
    """A request before it is written."""

    listener: str
    method: str
    template: str
    path: str
    query: str = ""
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    body: bytes = b""
    value: Any = None
    """The JSON of the body."""
    form: list[tuple[str, str]] | None = None
    """The fields of the body where it is a form."""


class Targets:
    """Makes requests."""

    def __init__(self, stand: ListenersStand, chance: random.Random) -> None:
        self._stand = stand
        self._chance = chance
        self.keys: dict[str, str] = {}
        """The secrets of keys by their IDs."""
        self.accounts = ["acme"]
        self.seen: list[str] = ["a"]
        """IDs and page tokens of earlier answers."""
        self.turns = [
            (name, method, path)
            for name, routes in stand.routes.items()
            for method, path in routes
            for _ in range(1 if "/console" in path or method == "HEAD" else 3)
        ]
        both = (("public", TRANSCODED), ("operators", SERVICES))
        self._bindings: Mapping[tuple[str, str, str], Binding] = {
            (name, each.verb, each.template.source): each
            for name, services in both
            for each in bindings(services)
        }

    def request(self) -> HttpRequest:
        """Return a valid request, or nearly, to some route."""
        listener, method, template = self._chance.choice(self.turns)
        made = HttpRequest(listener, method, template, self._path(template))
        self._authorize(made)
        verb = "GET" if method == "HEAD" else method
        binding = self._bindings.get((listener, verb, template))
        if binding is not None:
            self._fill(made, binding)
        elif method == "POST":
            self._fill_by_hand(made)
        elif "/console" in template:
            made.query = urlencode(self._fields())
        if made.value is not None:
            made.headers.append(("Content-Type", b"application/json"))
            made.body = json_text(made.value)
        return made

    def names(self) -> Mapping[str, Sequence[str]]:
        """Good values of texts, by the names of fields."""
        keys = list(self.keys)[:-1] * 3 + list(self.keys)  # The last one is in use.
        tokens = ["", *self.seen[-20:]]
        models = [*MODELS, EMBEDDING_MODEL]
        return {
            "account": self.accounts,
            "key_id": keys,
            "model": models,
            "models": models,
            "channel": [*(name.removeprefix("house/") for name in MODELS), "embed"],
            "call_id": [*self.seen[-20:], "call-0", "live-1"],
            "request_id": ["r-1", *self.seen[-5:]],
            "page_token": tokens,
            "parent": self.accounts,
            "id": tokens,
        }

    def _path(self, template: str) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1].rpartition(".")[2]
            if self._chance.random() < 0.15:
                return self._chance.choice(("%00", "%FF", "a%2Fb", "..", "%ED%A0%80", "a" * 300))
            good = self.names().get(name) or ["console.css", "a"]
            return quote(self._chance.choice(good), safe="/" if name == "model" else "")

        return PARAMETER.sub(value, template)

    def _authorize(self, made: HttpRequest) -> None:
        if made.listener == "operators":
            made.headers.append(("Authorization", f"Bearer {TOKEN}".encode()))
            made.headers.append(("x-pomogator-operator", b"ann"))
        elif "/console" in made.template:
            role = self._chance.choice(list(self._stand.cookies))
            made.headers.append(("Cookie", self._stand.cookies[role].encode()))
        elif self.keys:
            key = list(self.keys.values())[-1]
            name = self._chance.choice(("Authorization", "Authorization", "x-api-key"))
            made.headers.append((name, (key if name == "x-api-key" else f"Bearer {key}").encode()))

    def _fill(self, made: HttpRequest, binding: Binding) -> None:
        value = message_json(binding.method.input_type, self._chance, self.names())
        for name in binding.path_fields:
            value.pop(name.partition(".")[0] if "." not in name else name, None)
        if binding.body_field is not None:
            inner = value.pop(binding.body_field.name, {})
            made.query = urlencode(list(flat(value)))
            made.value = inner
        elif binding.takes_body:
            made.value = value
        else:
            made.query = urlencode(list(flat(value)))

    def _fill_by_hand(self, made: HttpRequest) -> None:
        chance, template = self._chance, made.template
        model = chance.choice(MODELS)
        if template.endswith("/embeddings"):
            value = {"model": EMBEDDING_MODEL, "input": chance.choice(("a", ["a", "b"], [1, 2]))}
            made.value = {**value, "encoding_format": chance.choice(("float", "base64"))}
        elif template == "/v1/completions":
            made.value = {"model": model, "prompt": "a", "max_tokens": 9, "stop": ["x"]}
        elif "/messages" in template:
            made.value = {**chance.choice(list(MESSAGES.values())), "model": model}
        elif "/responses" in template:
            made.value = {**chance.choice(list(RESPONSES.values())), "model": model}
        elif template.endswith("/chat/completions"):
            made.value = {**chance.choice(list(REQUESTS.values())), "model": model}
            if "/console" in template:
                role = chance.choice(list(self._stand.csrf))
                made.headers.append(("X-CSRF-Token", self._stand.csrf[role].encode()))
        else:
            self._fill_form(made)
            return
        if chance.random() < 0.5:
            made.value["stream"] = chance.random() < 0.7
        if "count_tokens" in template or "input_tokens" in template:
            for name in ("stream", "max_tokens", "max_output_tokens"):
                made.value.pop(name, None)

    def _fill_form(self, made: HttpRequest) -> None:
        cookie = dict(made.headers)["Cookie"].decode()
        role = next(name for name, each in self._stand.cookies.items() if each == cookie)
        made.form = [("csrf", self._stand.csrf[role]), *self._fields()]
        made.headers.append(("Content-Type", FORM.encode()))
        made.body = urlencode(made.form, errors="surrogatepass").encode()

    def _fields(self) -> list[tuple[str, str]]:
        """Fields of the console's forms and queries."""
        chance = self._chance
        fields = chance.sample(FORM_FIELDS, chance.randint(0, 12))
        values = {"action": ACTIONS, "key": [TOKEN, *self.keys.values()], **self.names()}
        return [(name, chance.choice(list(values.get(name, ODD_VALUES)))) for name in fields]


def flat(value: Any, prefix: str = "") -> Any:
    """Yield the query parameters of a message."""
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if isinstance(inner, dict):
            yield from flat(inner, f"{path}.")
        elif isinstance(inner, list):
            yield from ((path, str(each)) for each in inner)
        else:
            text = str(inner).lower() if isinstance(inner, bool) else str(inner)
            yield path, text
