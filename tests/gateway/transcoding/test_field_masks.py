from __future__ import annotations

from typing import Any

import pytest

from gateway.transcoding.bindings import bindings
from gateway.transcoding.request_builder import build
from tests.gateway.transcoding.sample_service import CompiledService


def mask_of(sample: CompiledService, method: str, query: str, body: str) -> list[str]:
    """Return the paths of `update_mask` in the request for a thing named `a`."""
    (binding,) = (each for each in bindings([sample.service]) if each.method.name == method)
    message: Any = build(binding, {"inner.name": "a"}, query, body.encode())
    return list(message.update_mask.paths)


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ("", []),
        ("{}", []),
        ('{"count":1}', ["count"]),
        ('{"count":null,"topKind":0}', ["count", "top_kind"]),
        ('{"write1h":1}', ["write_1h"]),
        ('{"write_1h":1}', ["write_1h"]),
        ('{"tags":[]}', ["tags"]),
        ('{"inner":{"count":1,"inner":{"tags":["a"]}}}', ["inner.count", "inner.inner.tags"]),
        ('{"inner":{}}', ["inner"]),
        ('{"inner":null}', ["inner"]),
        ('{"name":"b","count":1}', ["count"]),
        ('{"inner":{"name":"b"}}', ["inner.name"]),
    ],
)
def test_a_patch_without_a_mask_takes_it_from_the_body(
    sample: CompiledService, body: str, paths: list[str]
) -> None:
    """Fields that the path binds name the resource, so they are not in the mask."""
    assert mask_of(sample, "PatchThing", "", body) == paths
    assert mask_of(sample, "PatchThing", "update_mask=", body) == paths


def test_only_a_patch_takes_the_mask_from_the_body(sample: CompiledService) -> None:
    """A `PUT` replaces all of the resource."""
    assert mask_of(sample, "PutThing", "", '{"count":1}') == []


def test_a_mask_in_the_body_has_the_names_of_the_proto_too(sample: CompiledService) -> None:
    """The path names the resource, whose fields the mask has."""
    body = '{"updateMask":"write1h,inner.topKind,stranger","inner":{"count":1}}'

    assert mask_of(sample, "UpdateThing", "", body) == ["write_1h", "inner.top_kind", "stranger"]
    assert mask_of(sample, "UpdateThing", "", '{"inner":{"count":1}}') == []


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ("count", ["count"]),
        ("top_kind,inner.write_1h", ["top_kind", "inner.write_1h"]),
        ("topKind,inner.write1h", ["top_kind", "inner.write_1h"]),
        ("inner.topKind.a_1", ["inner.top_kind.a_1"]),
        ("stranger_1,otherOne2", ["stranger_1", "other_one2"]),
        ("*", ["*"]),
    ],
)
def test_a_mask_may_have_either_spelling(
    sample: CompiledService, given: str, paths: list[str]
) -> None:
    """Digits after an underscore are kept; the service gets the names of the proto."""
    assert mask_of(sample, "PatchThing", f"updateMask={given}", '{"count":1}') == paths
