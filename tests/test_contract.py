"""The contract: lint, format, backward compatibility, and fresh generated code."""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTO = ROOT / "proto"
SOURCES = "proto/pomogator"

pytest.importorskip("grpc_tools", reason="the group `gen` is not installed")
BUF = shutil.which("buf", path=str(Path(sys.executable).parent))
needs_buf = pytest.mark.skipif(BUF is None, reason="buf is not installed")
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no git checkout")


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    """Run a program and capture its output."""
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False)


def buf(*arguments: str, cwd: Path) -> None:
    """Run buf. Its findings fail the test."""
    assert BUF
    done = run(BUF, *arguments, cwd=cwd)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def workspace(folder: Path, contract: Path) -> Path:
    """Build a workspace of our contract, and Google's protos from the installed wheel."""
    shutil.copytree(contract / "pomogator", folder / "proto" / "pomogator")
    google = Path(str(files("google.api") / "annotations.proto")).parents[1]
    for source in (*google.glob("api/*.proto"), *google.glob("rpc/*.proto")):
        target = folder / "google" / source.relative_to(google.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    modules = "modules:\n  - path: proto\n  - path: google\n"
    (folder / "buf.yaml").write_text((contract / "buf.yaml").read_text() + modules)
    return folder


def generation(revision: str = "") -> str:
    """Return the version of the stubs' wheel up to its minor number. Empty: in the work tree."""
    path = "proto/pyproject.toml"
    shown = run("git", "show", f"{revision}:{path}").stdout if revision else read(path)
    version: str = tomllib.loads(shown.decode())["project"]["version"]
    return version.rpartition(".")[0]


def read(path: str) -> bytes:
    """Return the content of a file of the work tree."""
    return (ROOT / path).read_bytes()


def earlier_version(folder: Path) -> Path | None:
    """Return the contract on main, or before its last change, or None if there is neither.

    A new minor version of the stubs' wheel may break with the earlier ones while it is below 1.0.
    """
    log = run("git", "log", "--format=%H", "--", SOURCES).stdout.decode().split()
    for revision in ("origin/main", "main", *log):
        exists = run("git", "cat-file", "-e", f"{revision}:{SOURCES}").returncode == 0
        differs = run("git", "diff", "--quiet", revision, "--", SOURCES).returncode == 1
        if exists and differs:
            if generation(revision) != generation():
                return None
            archive = run("git", "archive", revision, "proto").stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(folder, filter="data")
            return folder / "proto"
    return None


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """A new generation gives exactly the committed files, byte for byte."""
    spec = importlib.util.spec_from_file_location("generate", PROTO / "generate.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    script.generate(tmp_path)

    def contents(root: Path) -> dict[str, bytes]:
        return {
            str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.py*") if is_source(p)
        }

    def is_source(path: Path) -> bool:
        return path.suffix in {".py", ".pyi"}

    fresh, committed = contents(tmp_path), contents(PROTO / "gen")
    stale = {
        name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name)
    }
    assert not stale, f"run `make proto`: {sorted(stale)}"


def test_packages_of_other_languages_follow_from_the_folder() -> None:
    """Each Go package has a name of its own; Java has a class for each message."""
    for source in PROTO.glob("pomogator/**/*.proto"):
        folder = source.parent.relative_to(PROTO)
        root, area, version = folder.parts
        options = set(re.findall(r"(?m)^option (.*);$", source.read_text()))
        assert options == {
            f'go_package = "{folder.as_posix()};{area}{version}"',
            "java_multiple_files = true",
            f'java_package = "com.{root}.{area}.{version}"',
        }


@needs_buf
def test_the_contract_passes_lint(tmp_path: Path) -> None:
    """The rules of buf.yaml hold: names, packages, and a comment on every element."""
    buf("lint", "proto", cwd=workspace(tmp_path, PROTO))


@needs_buf
def test_the_contract_is_formatted(tmp_path: Path) -> None:
    """`make fmt` would change nothing."""
    buf("format", "--diff", "--exit-code", "proto", cwd=workspace(tmp_path, PROTO))


@needs_buf
def test_lint_finds_a_planted_fault(tmp_path: Path) -> None:
    """A service with a wrong name and without a comment fails lint."""
    folder = workspace(tmp_path, PROTO)
    planted = folder / "proto/pomogator/planted/v1/planted.proto"
    planted.parent.mkdir(parents=True)
    planted.write_text('syntax = "proto3";\npackage pomogator.planted.v1;\nservice Planted {}\n')

    with pytest.raises(AssertionError, match=r"planted\.proto:3"):
        buf("lint", "proto", cwd=folder)


@needs_buf
@needs_git
def test_the_contract_is_backward_compatible(tmp_path: Path) -> None:
    """Clients of the previous version understand this one, unless the wheel's version says no."""
    earlier = earlier_version(tmp_path / "git")
    if earlier is None:
        pytest.skip("git knows no other version of the contract that this one must fit")
    image = tmp_path / "earlier.binpb"
    buf("build", "proto", "-o", str(image), cwd=workspace(tmp_path / "earlier", earlier))

    now = workspace(tmp_path / "now", PROTO)
    buf("breaking", "proto", "--against", str(image), cwd=now)


@needs_buf
def test_a_planted_breaking_change_is_found(tmp_path: Path) -> None:
    """A field with a changed number is found."""
    image = tmp_path / "earlier.binpb"
    buf("build", "proto", "-o", str(image), cwd=workspace(tmp_path / "earlier", PROTO))
    now = workspace(tmp_path / "now", PROTO)
    source = now / "proto/pomogator/chat/v1/usage.proto"
    source.write_text(source.read_text().replace(" = 1", " = 101", 1))

    with pytest.raises(AssertionError, match=r"usage\.proto"):
        buf("breaking", "proto", "--against", str(image), cwd=now)
