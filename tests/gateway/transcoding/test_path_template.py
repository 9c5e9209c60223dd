from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.transcoding.path_template import parse

MATCHES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("/v1/things", "/v1/things", {}),
    ("/v1/things/{name}", "/v1/things/a", {"name": "a"}),
    ("/v1/things/{name}", "/v1/things/a%2Fb", {"name": "a%2Fb"}),
    ("/v1/things/{a.b}/{c}", "/v1/things/1/2", {"a.b": "1", "c": "2"}),
    ("/v1/{name=shelves/*/things/*}", "/v1/shelves/1/things/2", {"name": "shelves/1/things/2"}),
    ("/v1/{parent=shelves/*}/things", "/v1/shelves/1/things", {"parent": "shelves/1"}),
    ("/files/{name=**}", "/files/a/b", {"name": "a/b"}),
    ("/files/{name=**}", "/files", {"name": ""}),
    ("/files/{name=a/**}", "/files/a", {"name": "a"}),
    ("/v1/*/x/**", "/v1/a/x/b/c", {}),
    ("/v1/things/{name}:undo", "/v1/things/a:undo", {"name": "a"}),
    ("/v1/things/{name}:undo", "/v1/things/a:b:undo", {"name": "a:b"}),
    ("/v1/things/{name}", "/v1/things/a:undo", {"name": "a:undo"}),
    ("/v1/things:list", "/v1/things:list", {}),
    ("/v1/a b", "/v1/a%20b", {}),
)

MISSES = (
    ("/v1/things", "/v1/things/"),
    ("/v1/things", "/v1/thing"),
    ("/v1/things/{name}", "/v1/things"),
    ("/v1/things/{name}", "/v1/things/"),
    ("/v1/things/{name}", "/v1/things/a/b"),
    ("/v1/things/{name}:undo", "/v1/things/a"),
    ("/v1/things/{name}:undo", "/v1/things/:undo"),
    ("/v1/things/{name}:undo", "/v1/things/a:redo"),
    ("/v1/{name=shelves/*}", "/v1/things/a"),
    ("/files/{name=a/**}", "/files"),
)


@pytest.mark.parametrize(("template", "path", "variables"), MATCHES)
def test_matches(template: str, path: str, variables: Mapping[str, str]) -> None:
    """A path that fits gives the variables, as they are encoded."""
    assert parse(template).match(path) == variables


@pytest.mark.parametrize(("template", "path"), MISSES)
def test_misses(template: str, path: str) -> None:
    """A path that does not fit gives nothing."""
    assert parse(template).match(path) is None


@pytest.mark.parametrize(
    "wrong",
    ["", "v1", "/", "/v1//a", "/v1/{}", "/v1/{a", "/v1/a}", "/v1/{a={b}}", "/v1/**/a",
     "/{a=**}/b", "/v1/{a}/{a}", "/v1/a*", "/v1/{a}b", "/v1/?", "/v1/{a}:", "/v1/***"],
)  # fmt: skip
def test_what_is_no_template(wrong: str) -> None:
    """What the grammar does not allow is an error, when the edge starts."""
    with pytest.raises(ValueError, match="template"):
        parse(wrong)


@pytest.mark.parametrize(
    ("template", "raw", "text"),
    [
        ("/{name}", "a%2Fb%20c+d", "a/b c+d"),
        ("/{name=*}", "%25", "%"),
        ("/{name=a/*}", "a/b%2Fc%2fd", "a/b%2Fc%2fd"),
        ("/{name=**}", "a/%E2%82%AC%20", "a/€ "),
        ("/{name=**}", "%252F", "%2F"),
        ("/{name}", "%zz", "%zz"),
    ],
)
def test_decodes(template: str, raw: str, text: str) -> None:
    """A variable of one segment is decoded whole, one of several keeps its encoded slashes."""
    assert parse(template).variables[0].decode(raw) == text


def test_decodes_utf8_only() -> None:
    """What is not UTF-8 is no text."""
    with pytest.raises(UnicodeDecodeError):
        parse("/{name}").variables[0].decode("%FF")


def test_precedence() -> None:
    """The most literal template comes first, and the one with a verb before the one without."""
    sources = ["/a/b", "/a/*:x", "/a/*", "/a/**:x", "/a/**", "/*/b", "/**"]

    found = sorted(map(parse, reversed(sources)), key=lambda template: template.precedence)

    assert [template.source for template in found] == sources
