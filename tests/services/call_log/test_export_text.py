"""Exports as text: what a spreadsheet or a parser of lines makes of callers' names."""

from __future__ import annotations

import csv
import io
import json

import pytest
from pomogator.calls.v1 import call_service_pb2 as pb

from services.call_log.export_text import FORMATS

CSV, NDJSON = FORMATS[pb.EXPORT_FORMAT_CSV], FORMATS[pb.EXPORT_FORMAT_NDJSON]
NAMES = ["end_user", "charge"]


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"])
def test_no_cell_of_text_is_a_formula(first: str) -> None:
    """An apostrophe makes it a text. Numbers stay as they are."""
    formula = f'{first}cmd|" /C calc"!A0'

    ((text, number),) = csv.reader(io.StringIO(CSV.lines(NAMES, [[formula, -5]]).decode()))

    assert (text, number) == (f"'{formula}", "-5")


@pytest.mark.parametrize("text", ['a"b', "a,b", "a\r\nb", "a;b", " =b", "\u2028"])
def test_a_row_is_one_record_in_both_forms(text: str) -> None:
    """Marks of the forms and ends of lines within a text do not end it."""
    rows = [[text, 1], ["next", 2]]

    lines = NDJSON.lines(NAMES, rows).decode().split("\n")
    records = list(csv.reader(io.StringIO(CSV.lines(NAMES, rows).decode(), newline="")))

    assert [json.loads(line)["end_user"] for line in lines if line] == [text, "next"]
    assert [record[0] for record in records] == [text, "next"]
