"""Texts of the console, in each of its languages.

The texts are data, `texts/LANGUAGE.json`. All languages have the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import msgspec

LANGUAGES: Mapping[str, str] = {"en": "English", "ru": "Русский"}
"""Names of the languages in themselves, by tag. The first one is the default."""

_TAG = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=([0-9.]{1,5}))?\s*")


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one language, by name."""

    language: str
    _by_name: Mapping[str, str]

    def __call__(self, text_name: str, /, **values: object) -> str:
        """Return the text with these values. KeyError for an unknown name."""
        text = self._by_name[text_name]
        return text.format(**values) if values else text

    @property
    def names(self) -> Sequence[str]:
        """Names of all texts."""
        return list(self._by_name)


def _read(language: str) -> Texts:
    file = resources.files(__package__) / "texts" / f"{language}.json"
    return Texts(language, msgspec.json.decode(file.read_bytes(), type=dict[str, str]))


TEXTS: Mapping[str, Texts] = {language: _read(language) for language in LANGUAGES}


def preferred(chosen: str, accept_language: str) -> Texts:
    """Return the texts of the chosen language, or else of the best one that the browser accepts."""
    if chosen in TEXTS:
        return TEXTS[chosen]
    ranked = sorted(_accepted(accept_language), key=lambda item: -item[1])
    known = (tag for tag, weight in ranked if tag in TEXTS and weight > 0)
    return TEXTS[next(known, next(iter(LANGUAGES)))]


def _accepted(header: str) -> Sequence[tuple[str, float]]:
    found = (_TAG.fullmatch(part) for part in header[:256].split(","))
    return [(match[1].lower(), _weight(match[2])) for match in found if match]


def _weight(text: str | None) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0
