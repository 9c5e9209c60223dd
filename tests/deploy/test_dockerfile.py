"""The images: how they are built is linted, and what they install is pinned."""

from __future__ import annotations

import re
import subprocess

from tests.deploy.manifests import ROOT, tool

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
STAGES = re.split(r"(?m)^FROM ", DOCKERFILE.read_text())[1:]


def test_lint() -> None:
    """Hadolint finds nothing."""
    done = subprocess.run((tool("hadolint"), str(DOCKERFILE)), capture_output=True, check=False)

    assert done.returncode == 0, done.stdout.decode()


def test_nothing_is_installed_but_by_hash() -> None:
    """Packages of a registry are wheels of a lock; the rest is from the checkout."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip[^&|]* install [^&|]*", text)

    assert len(installs) == 2
    for command in installs:
        assert "--no-deps" in command
        by_hash = "--require-hashes" in command and "--only-binary :all:" in command
        assert by_hash or "--no-index" in command
    for lock in ("build", "server", "edge"):
        assert (ROOT / "deploy" / "locks" / f"{lock}.txt").exists()


def test_base_is_pinned() -> None:
    """Its digest decides, and the folder that is deleted is that of its Python."""
    text = DOCKERFILE.read_text()
    (base,) = re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)$", text)

    pinned = re.fullmatch(
        r"docker\.io/library/python:(3\.\d+)\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base
    )
    assert pinned is not None
    assert set(re.findall(r"lib/python(3\.\d+)/", text)) == {pinned[1]}
    assert all(stage.startswith(("${PYTHON_IMAGE}", "runtime")) for stage in STAGES)


def test_images_run_as_nobody() -> None:
    """The user of both images is a number other than 0, which Kubernetes can check."""
    (runtime,) = (stage for stage in STAGES if stage.split("\n")[0].endswith(" AS runtime"))

    assert re.search(r"^USER 65532:65532$", runtime, re.MULTILINE)
    for name in ("server", "edge"):
        (stage,) = (each for each in STAGES if each.startswith(f"runtime AS {name}\n"))
        assert "USER" not in stage


def test_the_edge_has_no_code_of_the_service() -> None:
    """The edge's image has only `common` and `domain` of `services`."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    (removal,) = re.findall(r"find /venv/edge/\S+/services ([^&]*)-exec rm -r {} \+", text)

    assert re.findall(r"! -name (\S+)", removal) == ["common", "domain", "__init__.py"]
    assert removal.startswith("-mindepth 1 -maxdepth 1 ")
