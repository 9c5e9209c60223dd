"""Path templates of google.api.http.

Template = "/" Segments [ ":" LITERAL ]
Segments = Segment { "/" Segment }
Segment  = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

ONE = "*"
MANY = "**"

_VARIABLE = re.compile(r"\{([A-Za-z_][\w.]*)(?:=([^{}]+))?\}")
_SLASH = re.compile(r"/(?![^{}]*\})")  # Those within braces do not part segments.
_LITERAL = re.compile(r"[^{}*/:?#]+")
_VERB = re.compile(r":([^{}*/:?#]+)$")
_ENCODED_SLASH = re.compile(r"%(?=2[fF])")


@dataclass(frozen=True, slots=True)
class Variable:
    """A part of the path that is a field's value."""

    field: str
    """The field's path in the request, such as `shelf.name`."""
    start: int
    """The segment with which it begins."""
    end: int | None
    """The segment before which it ends; None where it takes all the rest."""
    spans: bool
    """Whether it may hold slashes, and so leaves `%2F` as it is."""

    def decode(self, raw: str) -> str:
        """The field's text. UnicodeDecodeError where it is not UTF-8."""
        return unquote(_ENCODED_SLASH.sub("%25", raw) if self.spans else raw, errors="strict")


@dataclass(frozen=True, slots=True)
class Template:
    """A path template, parsed."""

    source: str
    """As it is written."""
    segments: tuple[str, ...]
    """Literals, `*` and, as the last one only, `**`."""
    variables: tuple[Variable, ...]
    """In the order of the path."""
    verb: str
    """What follows the colon; empty where there is none."""

    def match(self, raw_path: str) -> Mapping[str, str] | None:
        """The variables' text, still encoded, or None where the path is another one."""
        parts = raw_path.removeprefix("/").split("/")
        if self.verb:
            parts[-1], _, verb = parts[-1].rpartition(":")
            if unquote(verb) != self.verb:
                return None
        deep = self.segments[-1] == MANY
        fixed = self.segments[:-1] if deep else self.segments
        if len(parts) < len(fixed) or (len(parts) > len(fixed) and not deep):
            return None
        if not all(_fits(part, segment) for part, segment in zip(parts, fixed, strict=False)):
            return None
        return {each.field: "/".join(parts[each.start : each.end]) for each in self.variables}

    @property
    def precedence(self) -> tuple[tuple[int, ...], bool]:
        """Sorts templates: of those that match one path, the most literal comes first."""
        ranks = {ONE: 1, MANY: 2}
        return tuple(ranks.get(segment, 0) for segment in self.segments), not self.verb


def parse(source: str) -> Template:
    """The template. ValueError where it is none."""
    path = source
    verb = _VERB.search(source)
    if verb is not None:
        path = source[: verb.start()]
    if not path.startswith("/"):
        raise ValueError(f"the template {source!r} does not begin with a slash")
    segments: list[str] = []
    variables: list[Variable] = []
    for piece in _SLASH.split(path[1:]):
        variable = _VARIABLE.fullmatch(piece)
        if variable is None:
            segments.append(piece)
            continue
        inner = (variable[2] or ONE).split("/")
        start = len(segments)
        segments.extend(inner)
        end = None if inner[-1] == MANY else len(segments)
        spans = len(inner) > 1 or inner == [MANY]
        variables.append(Variable(variable[1], start, end, spans))
    _check(source, segments, variables)
    return Template(source, tuple(segments), tuple(variables), verb[1] if verb else "")


def _check(source: str, segments: list[str], variables: list[Variable]) -> None:
    for segment in segments:
        if segment not in {ONE, MANY} and not _LITERAL.fullmatch(segment):
            raise ValueError(f"the template {source!r} has the segment {segment!r}")
    if MANY in segments[:-1]:
        raise ValueError(f"the template {source!r} goes on after `**`")
    if len({variable.field for variable in variables}) < len(variables):
        raise ValueError(f"the template {source!r} has a variable twice")


def _fits(part: str, segment: str) -> bool:
    return part != "" if segment == ONE else unquote(part) == segment
