"""No part of a prompt or an answer is in the call log."""

from __future__ import annotations

from pathlib import Path

from tests.stand.billing_stand import FORMS, billing_stand
from tests.stand.call_log import call_log_stand

CANARY = "c4n4ry"


async def test_the_files_have_no_prompt_and_no_answer(tmp_path: Path) -> None:
    """Neither text, nor the values of parameters, nor the provider's answer are written."""
    async with billing_stand(tmp_path) as stand, call_log_stand(stand) as log:
        key = await stand.open()
        tool = {"type": "function", "function": {"name": CANARY, "description": CANARY}}
        for form in FORMS:
            answer = await stand.ask(
                key,
                form,
                messages=[{"role": "user", "content": CANARY}],
                stop=[CANARY],
                tools=[tool],
                top_k=3,
                unknown_member=CANARY,
            )
            assert answer.status == 200
        await stand.ask(key, messages=[{"role": CANARY, "content": CANARY}])
        await stand.ask(key, model=CANARY)
        assert len(await log.all_calls()) >= 3

    written = b"".join(path.read_bytes() for path in (tmp_path / "calls").iterdir())
    assert b"house/model" in written
    assert CANARY.encode() not in written
    assert b"Hi!" not in written
