"""Skips that are not expected, where all that tests need should be installed.

With `--expected-skips FILE` a run fails after a skip that no line of the file names. A line is a
pattern, as of `fnmatch`, for the path of a test and the reason of its skip: `PATH: REASON`.
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

CATEGORY = "unexpected skips"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--expected-skips", metavar="FILE", help="fail after a skip that FILE does not name"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run after a skip that is not expected. Workers of xdist leave that to the first."""
    file = session.config.getoption("expected_skips")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if file is None or reporter is None:
        return
    lines = Path(file).read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    unexpected = [
        report
        for report in reporter.stats.get("skipped", [])
        if not any(fnmatchcase(_described(report), pattern) for pattern in patterns)
    ]
    if unexpected:
        reporter.stats[CATEGORY] = unexpected
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the skips that are not expected."""
    if skips := Counter(map(_described, terminalreporter.stats.get(CATEGORY, []))):
        terminalreporter.section(CATEGORY)
        for skip, count in sorted(skips.items()):
            terminalreporter.line(f"SKIPPED BUT NOT EXPECTED [{count}] {skip}", red=True)


def _described(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The path of a skipped test and its reason, as the lines of the file have them."""
    assert isinstance(report.longrepr, tuple)
    path = report.nodeid.partition("::")[0]
    return f"{path}: {report.longrepr[2].removeprefix('Skipped: ')}"
