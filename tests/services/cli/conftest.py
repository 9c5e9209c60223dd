"""A shell that runs commands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.cli import main

CONFIG = """
[[channels]]
name = "somewhere"
dialect = "openai"
base_url = "http://127.0.0.1:9/v1"
[channels.models]
"b/two" = "two"
"a/one" = "one"
"""


REMARKS = ("a new state was made", "calls are refused until one does")
"""Words of lines that a command may print on stderr although it succeeds."""


class Shell:
    """Runs commands on its own state."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = directory / "state"
        self.config = directory / "pomogator.toml"
        self.config.write_text(CONFIG)
        self._capsys = capsys
        self.remarks: list[str] = []
        """Lines of the last command about a state that it made."""

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """The output of a command: stdout, or stderr of one that must fail."""
        env = {"POMOGATOR_STATE": str(self.state), "POMOGATOR_CONFIG": str(self.config)}
        env |= variables
        assert main(arguments, env) == code
        captured = self._capsys.readouterr()
        lines = captured.err.splitlines(keepends=True)
        self.remarks = [line for line in lines if any(words in line for words in REMARKS)]
        errors = "".join(line for line in lines if line not in self.remarks)
        assert bool(errors) == (code != 0)
        return errors if code else captured.out

    def said(self) -> str:
        """The output on stderr since the last read."""
        return self._capsys.readouterr().err

    def printed(self) -> str:
        """The output since the last read: stdout, then stderr."""
        captured = self._capsys.readouterr()
        return captured.out + captured.err

    async def run_beside_server(self, *arguments: str, code: int = 0) -> str:
        """Run a command in a thread, while this loop serves."""
        return await asyncio.to_thread(self.run, *arguments, code=code)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)
