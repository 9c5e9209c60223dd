from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.transcoding.path_template import parse

MATCHES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("/v1/things", "/v1/things", {}),
    ("/v1/things/{name}", "/v1/things/a", {"name": "a"}),
    ("/v1/things/{name=*}", "/v1/things/a", {"name": "a"}),
    ("/v1/things/{name}", "/v1/things/a%2Fb", {"name": "a%2Fb"}),
    ("/v1/things/{a.b}/{c}", "/v1/things/1/2", {"a.b": "1", "c": "2"}),
    ("/v1/shelves/{a}/things/{b}", "/v1/shelves/1/things/2", {"a": "1", "b": "2"}),
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
    ("/v1/shelves/{name}", "/v1/things/a"),
)


@pytest.mark.parametrize(("template", "path", "variables"), MATCHES)
def test_a_matching_path_gives_the_variables(
    template: str, path: str, variables: Mapping[str, str]
) -> None:
    """Their texts are still encoded."""
    assert parse(template).match(path) == variables


@pytest.mark.parametrize(("template", "path"), MISSES)
def test_other_paths_do_not_match(template: str, path: str) -> None:
    """A path that differs in a literal, in length or in its verb gives None."""
    assert parse(template).match(path) is None


@pytest.mark.parametrize(
    "wrong",
    ["", "v1", "/", "/v1//a", "/v1/{}", "/v1/{a", "/v1/a}", "/v1/{a={b}}", "/v1/{a}/{a}", "/v1/a*",
     "/v1/{a}b", "/v1/?", "/v1/{a}:", "/v1/***"],
)  # fmt: skip
def test_a_malformed_template_is_an_error(wrong: str) -> None:
    """The grammar is checked when the edge starts."""
    with pytest.raises(ValueError, match="template"):
        parse(wrong)


@pytest.mark.parametrize("unserved", ["/v1/*", "/v1/**", "/v1/{a=**}", "/v1/{a=b/*}", "/v1/{a=b}"])
def test_a_template_of_several_segments_is_an_error(unserved: str) -> None:
    """google.api.http has them, and no method of the contract does."""
    with pytest.raises(ValueError, match="segment"):
        parse(unserved)


def test_the_most_literal_template_comes_first() -> None:
    """A template with a verb comes before the same one without."""
    sources = ["/a/b", "/a/{x}:y", "/a/{x}", "/{x}/b", "/{x}/{y}"]

    found = sorted(map(parse, reversed(sources)), key=lambda template: template.precedence)

    assert [template.source for template in found] == sources
