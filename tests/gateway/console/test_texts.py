from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway.console
from gateway.console.figures import FIGURES, minute
from gateway.console.texts import LANGUAGES, TEXTS, preferred

FOLDER = Path(gateway.console.__file__).parent
ENGLISH = TEXTS["en"]

IN_TEMPLATE = re.compile(r'\bt\(\s*["\']([a-z_.]+)["\'](?!\s*~)')
IN_CODE = re.compile(r'"([a-z_]+\.[a-z_]+)"')


def found(pattern: re.Pattern[str], path: Path) -> Iterator[str]:
    """Names of texts in a file."""
    yield from pattern.findall(path.read_text("utf-8"))


def placeholders(text: str) -> set[str | None]:
    """The names of the values in a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_all_texts(language: str) -> None:
    """All languages have the same values in them, and no text is empty."""
    texts = TEXTS[language]

    assert list(texts.names) == list(ENGLISH.names)
    for name in ENGLISH.names:
        assert texts(name).strip()
        assert placeholders(texts(name)) == placeholders(ENGLISH(name)), name


def test_pages_use_each_text() -> None:
    """Each text of a template exists, and each text is on a page or chosen by code."""
    known = set(ENGLISH.names)
    chosen = {name for path in FOLDER.glob("*.py") for name in found(IN_CODE, path)}
    shown = {name for path in FOLDER.glob("templates/*.html") for name in found(IN_TEMPLATE, path)}
    computed = {
        name for name in known if name.startswith(("theme.", "breaker.", "calls.", "audit."))
    }

    assert shown <= known
    assert known <= shown | chosen | computed


def test_russian_is_russian() -> None:
    """Only texts without letters of a language are the same as the English ones."""
    same = {name for name in ENGLISH.names if TEXTS["ru"](name) == ENGLISH(name)}

    assert same == {"call.surface", "key.id"}


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "ru", "ru"),
        ("", "ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        ("", "de, en;q=0.5, ru;q=0.7", "ru"),
        ("", "de", "en"),
        ("", "ru;q=0, en;q=0.1", "en"),
        ("", "ru;q=abc,,;;", "en"),
        ("ru", "en", "ru"),
        ("xx", "ru", "ru"),
    ],
)
def test_the_language_is_the_chosen_or_an_accepted_one(
    chosen: str, accepted: str, language: str
) -> None:
    """Among the accepted languages the highest weight decides."""
    assert preferred(chosen, accepted).language == language


@pytest.mark.parametrize(
    ("nano_usd", "english", "russian"),
    [
        (0, "$0.00", "0,00\u00a0$"),
        (1_234_567_890_000_000, "$1,234,567.89", "1\u202f234\u202f567,89\u00a0$"),
        (123_000, "$0.000123", "0,000123\u00a0$"),
        (-1_500_000_000, "\u2212$1.50", "\u22121,50\u00a0$"),
        (-1, "$0.00", "0,00\u00a0$"),
        (500, "$0.000001", "0,000001\u00a0$"),
    ],
)
def test_amounts_are_written_as_the_language_does(
    nano_usd: int, english: str, russian: str
) -> None:
    """They have its marks and spaces, and at least two decimals."""
    assert FIGURES["en"].usd(nano_usd) == english
    assert FIGURES["ru"].usd(nano_usd) == russian


def test_counts_prices_and_times_have_their_forms() -> None:
    """Prices are for a million tokens."""
    assert FIGURES["ru"].count(1234567) == "1\u202f234\u202f567"
    assert FIGURES["en"].decimal(1234.56) == "1,234.6"
    assert FIGURES["en"].per_mtok(3_000_000) == "$3.00"
    assert minute(1_800_000_000) == "2027-01-15 08:00"
