from __future__ import annotations

from pathlib import Path

import pytest

from gateway.transcoding.bindings import bindings
from tests.gateway.transcoding.sample_service import SOURCE, CompiledService


def test_every_annotated_method_has_a_binding(sample: CompiledService) -> None:
    """Methods without an annotation have none."""
    found = [(each.method.name, each.verb) for each in bindings([sample.service])]

    assert found.count(("GetThing", "GET")) == 1
    assert ("UpdateThing", "PATCH") in found
    assert "NotForRest" not in {name for name, _ in found}


def test_the_most_literal_template_comes_first(sample: CompiledService) -> None:
    """A template that matches the paths of another one comes after it."""
    paths = [each.template.source for each in bindings([sample.service])]

    assert paths.index("/v1/things/special") < paths.index("/v1/things/{name}")
    assert paths.index("/v1/files/{name}:describe") < paths.index("/v1/files/{name}")


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ('get: "/v1/{stranger}"', "stranger"),
        ('get: "/v1/{tags}"', "tags"),
        ('get: "/v1/{inner}"', "inner"),
        ('get: "/v1/{labels.key}"', "labels.key"),
        ('get: "v1"', "slash"),
        ('post: "/v1" body: "stranger"', "stranger"),
        ('post: "/v1" response_body: "inner.name"', "inner.name"),
        ('get: "/v1/{name=**}"', "segment"),
        ('get: "/v1" additional_bindings {get: "/v2"}', "additional bindings"),
        ('custom {kind: "PURGE" path: "/v1"}', "custom verbs"),
    ],
)
def test_a_wrong_annotation_is_an_error(tmp_path: Path, rule: str, complaint: str) -> None:
    """The edge does not start, and the message names the method."""
    source = SOURCE.replace('get: "/v1/things/special"', rule)
    service = CompiledService.compiled(tmp_path, source).service

    with pytest.raises(ValueError, match=complaint) as refused:
        bindings([service])

    assert "SampleService.GetSpecial" in str(refused.value)


def test_a_stream_of_requests_is_an_error(tmp_path: Path) -> None:
    """A method whose requests stream has no REST form."""
    source = SOURCE.replace("rpc GetSpecial(Thing)", "rpc GetSpecial(stream Thing)")
    service = CompiledService.compiled(tmp_path, source).service

    with pytest.raises(ValueError, match="requests do not stream"):
        bindings([service])
