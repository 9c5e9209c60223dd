"""The comments of `error_reason.proto` against the details that the service sends."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo

from services.common import call_names
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.failure_rules import CODES, GENERAL_CODES, STATUSES, TEXTS
from services.providers.failures import provider_failure

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto/pomogator/chat/v1/error_reason.proto"
COMMENT = re.compile(r"(?P<comment>(?:  //.*\n)+)  ERROR_REASON_(?P<name>\w+) = ")
LISTED = r"(?:`([\w.]+)`(?:, )?)+"
REFUSALS = ROOT / "services/providers/failures.py"
"""Its reasons come from tables, and its failures are made below, not read from the source."""


_PROVIDER_BODY = b'{"error": {"message": "text", "param": "messages", "code": "%b"}}'


class Sent(NamedTuple):
    """Metadata keys and detail types of one kind of failure."""

    reason: str
    metadata: frozenset[str]
    details: frozenset[str]


def sent(failure: Failure) -> Sent:
    """The metadata and details of a failure's status."""
    info, *others = failure.to_status().details
    unpacked = ErrorInfo()
    assert info.Unpack(unpacked)
    details = frozenset(packed.type_url.rpartition("/")[2] for packed in others)
    return Sent(failure.reason, frozenset(unpacked.metadata), details)


def constructed() -> Iterator[Sent]:
    """The most that each constructor call in the source can send."""
    for path in sorted((ROOT / "services").rglob("*.py")):
        if path == REFUSALS:
            continue
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _makes_failure(node):
                for reason in _reasons(node, tree):
                    yield sent(_example(reason, node))


def _makes_failure(call: ast.Call) -> bool:
    if not call.args:
        return False
    made = ast.unparse(call.func)
    is_subclass = made == "super().__init__" and bool(_named(call.args[0]))
    return made in {"Failure", "UpstreamError"} or is_subclass


def _named(node: ast.AST) -> set[str]:
    return {
        found.attr
        for found in ast.walk(node)
        if isinstance(found, ast.Attribute) and ast.unparse(found.value) == "ErrorReason"
    }


def _reasons(call: ast.Call, module: ast.Module) -> set[str]:
    """The reason that the call names; if it names none, each that its module names."""
    return _named(call.args[0]) or _named(module)


def _example(reason: str, call: ast.Call) -> Failure:
    """A failure with everything that the call may give it. Names of facts are shared constants."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    facts = [
        key.value if isinstance(key, ast.Constant) else getattr(call_names, ast.unparse(key))
        for node in ast.walk(given.get("facts", ast.Dict([], [])))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if key is not None
    ]
    return Failure(
        ErrorReason(reason),
        "message",
        param="field" if "param" in given else "",
        facts={str(fact): "7" for fact in facts},
        retry_after_s=1.0 if "retry_after_s" in given else None,
    )


def refused() -> Iterator[Sent]:
    """The most that a provider's refusals can send: with a field at fault and a time to wait."""
    headers = {"retry-after": "1"}
    for status in STATUSES:
        yield sent(provider_failure(status, headers, _PROVIDER_BODY % b"some_code"))
    for code in (*CODES, *GENERAL_CODES):
        body = _PROVIDER_BODY % code.encode()
        yield sent(provider_failure(0, headers, body, own_error=True))
    for rule in TEXTS:
        failure = provider_failure(max(STATUSES), headers, _PROVIDER_BODY % b"some_code")
        failure.reason = rule.reason
        yield sent(failure)


def documented() -> dict[str, Sent]:
    """The metadata and details that the comments list, by the reason's name."""
    found = {}
    for match in COMMENT.finditer(PROTO.read_text()):
        comment = " ".join(line.strip("/ ") for line in match["comment"].splitlines())
        found[match["name"]] = Sent(
            match["name"], _listed("Metadata", comment), _listed("Details", comment)
        )
    return found


def _listed(word: str, comment: str) -> frozenset[str]:
    match = re.search(f"{word}: {LISTED}", comment)
    return frozenset(re.findall(r"`([\w.]+)`", match[0])) if match else frozenset()


def collected() -> dict[str, Sent]:
    """Everything that is sent with a reason, by its name."""
    total = {name: Sent(name, frozenset(), frozenset()) for name in documented()}
    for one in (*constructed(), *refused()):
        known = total[one.reason]
        total[one.reason] = Sent(
            one.reason, known.metadata | one.metadata, known.details | one.details
        )
    return total


SENT = collected()
QUOTA = QuotaFailure.DESCRIPTOR.full_name
RETRY, BAD = RetryInfo.DESCRIPTOR.full_name, BadRequest.DESCRIPTOR.full_name


def test_the_sources_of_failures_are_found() -> None:
    """The collection sees literal reasons, subclasses, conditional facts, and tables."""
    assert SENT["MODEL_NOT_FOUND"].metadata == {"model", "param"}
    assert SENT["RATE_LIMIT_EXCEEDED"].metadata == {"limit", "limitValue"}
    assert SENT["OVERLOADED"].metadata == {"scarce"}
    assert SENT["UPSTREAM_RATE_LIMITED"].details == {QUOTA, RETRY}
    assert SENT["INVALID_FIELD"].details == {BAD}


@pytest.mark.parametrize("name", documented())
def test_comments_list_what_is_sent(name: str) -> None:
    """Each comment's "Metadata:" and "Details:" have all that is sent, and nothing else."""
    assert documented()[name] == SENT[name]
