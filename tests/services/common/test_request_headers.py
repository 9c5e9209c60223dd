from __future__ import annotations

import re

import pytest

from services.common.request_headers import new_request_id, request_id_or_new

NEW = re.compile(r"req-[0-9a-f]{32}")


def test_new_request_ids_differ() -> None:
    """All of them have one form, which is fit for logs."""
    made = {new_request_id() for _ in range(1000)}

    assert len(made) == 1000
    assert all(NEW.fullmatch(each) and request_id_or_new(each) == each for each in made)


@pytest.mark.parametrize("given", ["client-1.a_B", "x" * 64, "0", "-", "."])
def test_a_callers_request_id_is_kept(given: str) -> None:
    """1 to 64 letters, digits, `_`, `.` and `-`."""
    assert request_id_or_new(given) == given


@pytest.mark.parametrize(
    "given",
    [None, "", "a b", "a\nb", "a\n", "\r\n", "x" * 65, "ключ", "\udcff", "\x1b[31m", "a/b", "٣"],
)
def test_a_request_id_that_is_unfit_for_logs_is_replaced(given: str | None) -> None:
    """So is an absent one."""
    assert NEW.fullmatch(request_id_or_new(given))
