from __future__ import annotations

from pathlib import Path

import pytest

from gateway.transcoding.bindings import bindings
from tests.gateway.transcoding.torture import SOURCE, Torture


def test_finds_every_binding(torture: Torture) -> None:
    """Additional bindings count, and methods without an annotation do not."""
    found = [(each.method.name, each.verb) for each in bindings([torture.service])]

    assert found.count(("GetThing", "GET")) == 4
    assert ("PurgeThings", "PURGE") in found
    assert "NotForRest" not in {name for name, _ in found}


def test_most_literal_first(torture: Torture) -> None:
    """What would hide another template comes after it."""
    paths = [each.template.source for each in bindings([torture.service])]

    assert paths.index("/v1/things/special") < paths.index("/v1/things/{name}")
    assert paths.index("/files/{name=**}:describe") < paths.index("/files/{name=**}")


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
        ('get: "/v1" additional_bindings {body: "*"}', "without a path"),
    ],
)
def test_refuses_what_cannot_be(tmp_path: Path, rule: str, complaint: str) -> None:
    """An annotation that cannot be met stops the edge from starting, and says which it is."""
    source = SOURCE.replace('get: "/v1/things/special"', rule)
    service = Torture.compiled(tmp_path, source).service

    with pytest.raises(ValueError, match=complaint) as refused:
        bindings([service])

    assert "TortureService.GetSpecial" in str(refused.value)


def test_refuses_streams_of_requests(tmp_path: Path) -> None:
    """A method whose requests stream has no REST form."""
    source = SOURCE.replace("rpc GetSpecial(Thing)", "rpc GetSpecial(stream Thing)")
    service = Torture.compiled(tmp_path, source).service

    with pytest.raises(ValueError, match="requests do not stream"):
        bindings([service])
