"""Runs of pytest that skip tests, with a list of the skips that are expected."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = """
import pytest

def test_of_nothing():
    pass

@pytest.mark.skipif(True, reason="the balancer is not installed")
def test_of_a_balancer():
    pass

def test_of_a_container():
    pytest.skip("no container runs here")

@pytest.mark.xfail
def test_that_fails():
    raise AssertionError
"""
BALANCER = "test_of_tools.py: the balancer is not installed"
CONTAINER = "*: no container * here"
MODULE = 'import pytest\npytest.importorskip("a_missing_module", reason="no module")\n'
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTEST_ADDOPTS": "",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # They take seconds.
}


async def run(folder: Path, *expected: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit code and the output of a run that expects these skips."""
    (folder / "skips").write_text("\n".join(("# Skips", "", *expected)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.stand.expected_skips"),
        *("-p", "no:cacheprovider", "--rootdir", ".", "--expected-skips", "skips"),
        *options,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with tests of which two are skipped."""
    (tmp_path / "test_of_tools.py").write_text(TESTS)
    return tmp_path


async def test_expected_skips_fail_nothing(folder: Path) -> None:
    """All skips are named, by their words or by patterns."""
    code, output = await run(folder, BALANCER, CONTAINER)

    assert code == 0, output
    assert "NOT EXPECTED" not in output


@pytest.mark.parametrize("options", [(), ("-n", "1")])
async def test_a_skip_that_is_not_expected_fails_the_run(
    folder: Path, options: tuple[str, ...]
) -> None:
    """Its line is in the report, and the closing line counts it; also where workers run tests."""
    code, output = await run(folder, CONTAINER, options=options)

    assert code == 1
    assert f"SKIPPED BUT NOT EXPECTED [1] {BALANCER}\n" in output
    assert "1 unexpected skips" in output.splitlines()[-1]


@pytest.mark.parametrize("options", [(), ("-n", "1")])
async def test_a_module_that_is_skipped_whole_fails_the_run(
    folder: Path, options: tuple[str, ...]
) -> None:
    """A module that a test needs is missing; the tests of other files run."""
    (folder / "test_of_modules.py").write_text(MODULE)
    code, output = await run(folder, BALANCER, CONTAINER, options=options)

    assert code == 1
    assert "SKIPPED BUT NOT EXPECTED [1] test_of_modules.py: no module\n" in output
    assert "1 passed" in output.splitlines()[-1]
