"""What we ship: the wheel, the source archive, and the locks that they are installed with."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from tests.environments import LOCKS, ROOT, build

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

pytest.importorskip("hatchling", reason="the group `build` is not installed")

TRY_IT = """
import sys
sys.path.insert(0, sys.argv[1])
import gateway, services.config
from services.providers.registry import DIALECTS
from importlib.metadata import distribution
from pomogator.chat.v1 import chat_completion_service_pb2_grpc
for module in (gateway, services, chat_completion_service_pb2_grpc):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
assert services.config.load(None, {"OPENAI_API_KEY": "k"}, dialects=DIALECTS).channels
(script,) = distribution("pomogator").entry_points.select(group="console_scripts")
assert callable(script.load())
assert sys.modules[script.module].__file__.startswith(sys.argv[1])
"""

ONLY_EDGE = """
import re, sys
from importlib.metadata import packages_distributions
packages, locked, *arguments = sys.argv[1:]
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
known = {plain(name) for name in locked.split(",")} | {"pomogator", "setuptools"}
for module, owners in packages_distributions().items():
    if known.isdisjoint(map(plain, owners)):
        sys.modules[module] = None
sys.path.insert(0, packages)
sys.argv[:] = ["gateway", *arguments]
"""
"""Hides the distributions that are not in the lock."""

IMPORT_EDGE = """
import importlib, pkgutil
import gateway, services.common, services.domain
for package in (gateway, services.common, services.domain):
    assert package.__file__.startswith(packages), package.__file__
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""

RUN_EDGE = """
import runpy
runpy.run_module("gateway", run_name="__main__")
"""

COUNT_WITHOUT_NUMPY = """
import asyncio, sys
sys.modules["numpy"] = None
sys.path[:0] = [".", "proto/gen"]
from services.metering.tokens import TokenCounter
counter = TokenCounter()
assert asyncio.run(counter.load())
assert counter.count("Hello, world!") == 4
"""


def required(requirements: list[str]) -> set[str]:
    """The names of the distributions that these requirements name."""
    return {re.split(r"[\[<>=; ]", text)[0] for text in requirements} - {"pomogator"}


def locked(name: str) -> dict[str, str]:
    """The blocks of a lock, by distribution: requirement and hashes."""
    blocks = re.split(r"\n(?=\S)", (LOCKS / name).read_text().strip())
    return {re.split(r"[=\[]", block)[0]: block for block in blocks}


def test_wheel_works_on_its_own(tmp_path: Path) -> None:
    """Unpacked alone it has edge, service, contract, data and command, and nothing else."""
    wheel = build("wheel", tmp_path / "dist")
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(wheel, unpacked, "zip")

    top = {path.name.partition("-")[0] for path in unpacked.iterdir()}
    assert top == {"gateway", "pomogator", "services"}
    assert list(unpacked.glob("*.dist-info/licenses/LICENSE"))
    assert all((unpacked / name / "py.typed").exists() for name in top)
    console = (ROOT / "gateway" / "console").glob("[!_]*/*.*")
    for data in (*(ROOT / "services").rglob("*.toml"), *console):
        assert (unpacked / data.relative_to(ROOT)).read_bytes() == data.read_bytes()
    done = subprocess.run(
        (sys.executable, "-I", "-c", TRY_IT, str(unpacked)), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_edges_image_has_all_that_the_edge_needs(tmp_path: Path) -> None:
    """The wheel without what the Dockerfile deletes, and the distributions of the edge's lock."""
    packages = tmp_path / "packages"
    shutil.unpack_archive(build("wheel", tmp_path / "dist"), packages, "zip")
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    (deletion,) = re.findall(r"find /venv/edge/\S+/site-packages/services [^&\n]*\{\} \+", text)
    deletion = re.sub(r"/venv/edge/\S+/site-packages", str(packages), deletion)
    subprocess.run(shlex.split(deletion), check=True)
    assert {path.name for path in (packages / "services").iterdir()} == {
        "__init__.py",
        "common",
        "domain",
    }

    for code, argument, said in ((IMPORT_EDGE, "", ""), (RUN_EDGE, "--help", "--target TARGET")):
        lock = ",".join(locked("edge.txt"))
        command = (sys.executable, "-I", "-c", ONLY_EDGE + code, str(packages), lock, argument)
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_source_archive_is_whole(tmp_path: Path) -> None:
    """It has what `make test` needs, and nothing that was left lying about."""
    archive = build("sdist", tmp_path / "dist")

    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for expected in (
        *("pyproject.toml", "Makefile", "LICENSE", "README.md", "deploy/locks/dev.txt"),
        *("proto/generate.py", "proto/pomogator/chat/v1/usage.proto", "tests/test_packaging.py"),
    ):
        assert expected in names
    assert not [name for name in names if name.startswith(("var/", ".venv/", "dist/"))]


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.name)
def test_locks_pin_every_file(path: Path) -> None:
    """Each distribution has one version and a hash, and no lock says where to get it."""
    assert not re.search(r"://|--index|--find-links", path.read_text())
    for name, block in locked(path.name).items():
        assert re.match(rf"{re.escape(name)}==\S+", block)
        assert "--hash=sha256:" in block


@pytest.mark.parametrize(
    ("lock", "extras", "groups"),
    [
        (
            "dev.txt",
            ["postgres", "redis", "otel", "tokens", "local"],
            ["build", "gen", "lint", "test"],
        ),
        ("run.txt", ["local"], ["build"]),
        ("server.txt", ["postgres", "redis", "otel", "tokens"], []),
        ("edge.txt", ["otel"], []),
    ],
)
def test_locks_hold_what_the_project_asks_for(
    lock: str, extras: list[str], groups: list[str]
) -> None:
    """A dependency that was added without `make lock` is found here."""
    wanted = list(PROJECT["project"]["dependencies"])
    wanted += [row for name in extras for row in PROJECT["project"]["optional-dependencies"][name]]
    wanted += [row for name in groups for row in PROJECT["dependency-groups"][name]]

    assert required(wanted) <= locked(lock).keys()


def test_versions_of_python_agree() -> None:
    """Metadata, make and the images name the same Pythons, and no lock is for one of them alone."""
    rows = PROJECT["project"]["classifiers"]
    named = [row.rpartition(":: ")[2] for row in rows if re.search(r"Python :: 3\.\d+$", row)]
    (oldest,) = re.findall(r"(?m)^OLDEST := (\S+)$", (ROOT / "Makefile").read_text())
    (image,) = re.findall(r"python:(3\.\d+)", (ROOT / "deploy" / "Dockerfile").read_text())

    assert named == ["3.11", "3.12", "3.13", "3.14"]
    assert oldest == named[0]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert image in named


OLD_PYTHON = """#!/bin/sh
exec {python} -c 'import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])' "$2"
"""


@pytest.mark.parametrize("there", [True, False])
def test_make_refuses_an_old_python(tmp_path: Path, *, there: bool) -> None:
    """It names the version that it needs, and leaves no environment behind."""
    old = tmp_path / "python3.10"
    if there:
        old.write_text(OLD_PYTHON.format(python=sys.executable))
        old.chmod(0o755)
    environment = tmp_path / "environment"

    done = subprocess.run(
        ("make", "run", f"PYTHON={old}", f"VENV={environment}"),  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode != 0
    assert f"Pomogator needs Python 3.11 or newer; {old} is not that" in done.stderr
    assert not environment.exists()


def test_locks_agree() -> None:
    """What runs is what was tested: the same versions in every lock."""
    tested = locked("dev.txt")

    for lock in ("run.txt", "server.txt", "edge.txt"):
        for name, block in locked(lock).items():
            if name in tested:
                assert block.split()[0] == tested[name].split()[0]


def test_tokens_are_counted_without_numpy() -> None:
    """The vocabulary's package asks for it; the image leaves it out."""
    pytest.importorskip("quicktok", reason="the extra `tokens` is not installed")
    assert "numpy" not in locked("server.txt")

    done = subprocess.run(
        (sys.executable, "-c", COUNT_WITHOUT_NUMPY), cwd=ROOT, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr.decode()
