"""The images, built by a container engine where one runs, and else step by step in a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.deploy.manifests import ROOT
from tests.environments import empty
from tests.stand.process import Process, Server
from tests.stand.servers import GRPC

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
(BUILD,) = re.findall(r"(?ms)^FROM \S+ AS build\n(.*?)^FROM ", DOCKERFILE)
(VERSION,) = re.findall(r"/lib/(python3\.\d+)/", DOCKERFILE)
STEPS = re.findall(r"(?m)^(COPY|RUN) (.*)$", BUILD)
TARGETS = ("server", "edge")

# They install the locks, from a registry.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]


def engine() -> str:
    """A container engine that runs here; skips without one."""
    for name in ("docker", "podman"):
        path = shutil.which(name)
        if path and not subprocess.run((path, "info"), capture_output=True, check=False).returncode:
            return path
    pytest.skip("no container engine runs on this machine")


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs(target: str) -> None:
    """It is built, and its program starts as the user of the image on a read-only root."""
    run, tag = engine(), f"pomogator-test-{target}"
    file = ("--file", str(ROOT / "deploy" / "Dockerfile"))
    subprocess.run((run, "build", *file, "--target", target, "--tag", tag, str(ROOT)), check=True)

    done = subprocess.run(
        (run, "run", "--rm", "--read-only", "--network", "none", tag, "--version"),
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+\s*", done.stdout)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the steps of the stage `build` have run, as if it were the root."""
    root = tmp_path_factory.mktemp("root")
    empty(root / "probe")  # Skips where no registry answers.
    source = root / "src"
    source.mkdir()
    for kind, text in STEPS:
        if kind == "COPY":
            *copied, into = text.split()
            for name in copied:
                _copy(ROOT / name, source / into / (name if into == "./" else ""))
        else:
            _execute(text, root)
    return root


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def _execute(step: str, root: Path) -> None:
    here = f"python3.{sys.version_info.minor}"
    command = re.sub(r"(?<![\w.])/(venv|wheels)\b", rf"{root}/\1", step).replace(VERSION, here)
    done = subprocess.run(
        ("/bin/sh", "-c", command),
        cwd=root / "src",
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(root)}
        | {name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def programs(root: Path) -> Iterator[Path]:
    """The Python of each image."""
    return (root / "venv" / target / "bin" / "python" for target in TARGETS)


def test_steps_leave_what_the_images_copy(root: Path) -> None:
    """Each has the edge's modules compiled and no installer, the edge's no code of the service."""
    for python in programs(root):
        packages = next(python.parents[1].glob("lib/python3.*/site-packages"))
        compiled = {path.name.partition(".")[0] for path in packages.glob("gateway/__pycache__/*")}
        assert compiled == {path.stem for path in packages.glob("gateway/*.py")}
        assert not (packages / "pip").exists()
    edge = next((root / "venv" / "edge").glob("lib/python3.*/site-packages"))
    assert not (root / "venv" / "edge" / "bin" / "pomogator").exists()
    assert not (edge / "services" / "serving").exists()


async def test_server_and_edge_of_the_images_serve(root: Path, tmp_path: Path) -> None:
    """The server's program and the edge's, as the images start them, are a gateway."""
    server_python, edge_python = programs(root)
    alone = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1", "OPENAI_API_KEY": "invented"}
    grpc = f"unix:{tmp_path / 'grpc.sock'}"
    server = Server(
        *("--state", tmp_path / "var", "--rest", "127.0.0.1:0", "--grpc", grpc, "--metrics", ""),
        ready={**GRPC, "address": grpc},
        env=alone,
        program=[server_python.with_name("pomogator")],
    )
    edge = Process(
        *(edge_python, "-I", "-m", "gateway"),
        *("--rest", "127.0.0.1:0", "--target", grpc, "--metrics", ""),
        env=alone,
    )
    try:
        await server.start()
        await edge.spawn()
        url = f"http://{await edge.while_running(edge.address('http'))}/v1/models"
        headers = {"Authorization": f"Bearer {await server.while_running(server.first_key())}"}
        async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
            assert answer.status == 200
            assert (await answer.json())["data"]
    finally:
        await edge.stop()
        await server.stop()
