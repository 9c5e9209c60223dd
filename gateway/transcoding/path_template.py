"""Path templates of google.api.http, as far as the contract uses them.

    Template = "/" Segment { "/" Segment } [ ":" LITERAL ]
    Segment  = LITERAL | "{" FieldPath [ "=*" ] "}"

Wildcards outside of variables, and variables of several segments, are refused when the edge
starts: no method has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

_VARIABLE = re.compile(r"\{([A-Za-z_][\w.]*)(?:=\*)?\}")
_LITERAL = re.compile(r"[^{}*/:?#]+")
_VERB = re.compile(r":([^{}*/:?#]+)$")


class Segment(NamedTuple):
    """A part of the path between two slashes."""

    text: str
    """The literal text, or the path of the field whose value the segment is."""
    is_variable: bool


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path template, parsed."""

    source: str
    """The template as it is written."""
    segments: tuple[Segment, ...]
    verb: str
    """The literal after the colon; empty without one."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The paths of the fields in the template, such as `account.account`, in their order."""
        return tuple(segment.text for segment in self.segments if segment.is_variable)

    def match(self, raw_path: str) -> Mapping[str, str] | None:
        """Return the text of each variable, still encoded, or None where the path is another."""
        parts = raw_path.removeprefix("/").split("/")
        if self.verb:
            parts[-1], _, verb = parts[-1].rpartition(":")
            if unquote(verb) != self.verb:
                return None
        if len(parts) != len(self.segments):
            return None
        found: dict[str, str] = {}
        for part, segment in zip(parts, self.segments, strict=True):
            if segment.is_variable and part:
                found[segment.text] = part
            elif segment.is_variable or unquote(part) != segment.text:
                return None
        return found

    @property
    def precedence(self) -> tuple[tuple[bool, ...], bool]:
        """Sort key: of the templates that match a path, the most literal one comes first."""
        return tuple(segment.is_variable for segment in self.segments), not self.verb


def parse(source: str) -> PathTemplate:
    """Return the template.

    Raises ValueError: `source` is not a template, or one of a kind that the edge does not serve.
    """
    verb = _VERB.search(source)
    path = source[: verb.start()] if verb else source
    if not path.startswith("/"):
        raise ValueError(f"the template {source!r} does not begin with a slash")
    segments = tuple(_segment(source, text) for text in path[1:].split("/"))
    template = PathTemplate(source, segments, verb[1] if verb else "")
    if len(set(template.variables)) < len(template.variables):
        raise ValueError(f"the template {source!r} has a variable twice")
    return template


def _segment(source: str, text: str) -> Segment:
    variable = _VARIABLE.fullmatch(text)
    if variable is not None:
        return Segment(variable[1], is_variable=True)
    if not _LITERAL.fullmatch(text):
        raise ValueError(f"the template {source!r} has the segment {text!r}")
    return Segment(text, is_variable=False)
