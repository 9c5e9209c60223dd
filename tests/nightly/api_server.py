"""Builds a real Kubernetes API server, for `tests/deploy/test_api_server.py` to apply to.

    python -m tests.nightly.api_server FOLDER

Needs Go, and its module proxy: what it builds is what the projects have published there, with
the sums that Go's database vouches for. It takes a quarter of an hour on two cores, and 5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

KUBERNETES = "1.37.2"
STAGED = f"v0.{KUBERNETES.partition('.')[2]}"
"""The version of the modules that Kubernetes is made of and publishes apart."""
DEFINITIONS = {
    "github.com/cert-manager/cert-manager@v1.21.1": [
        "deploy/crds/cert-manager.io_certificates.yaml",
        "deploy/crds/cert-manager.io_issuers.yaml",
    ],
    "sigs.k8s.io/gateway-api@v1.6.3": ["config/crd/standard/*_httproutes.yaml"],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/*_servicemonitors.yaml"
    ],
}
"""Sources of the definitions of custom resources."""
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
}
IMPORTS = "\n".join(f"import _ {json.dumps(package)}" for package in PROGRAMS.values())
MAJOR, MINOR, _ = KUBERNETES.split(".")
VERSION = "k8s.io/component-base/version.git"
FLAGS = (
    f"-s -w -X {VERSION}Version=v{KUBERNETES} -X {VERSION}Major={MAJOR} -X {VERSION}Minor={MINOR}"
)


def build(folder: Path) -> None:
    """Puts the programs and the definitions into `folder`; does nothing where they are."""
    (folder / "definitions").mkdir(parents=True, exist_ok=True)
    for module, patterns in DEFINITIONS.items():
        source = _download(module, folder)
        for path in (path for pattern in patterns for path in source.glob(pattern)):
            shutil.copyfile(path, folder / "definitions" / path.name)
    if all((folder / name).exists() for name in PROGRAMS):
        return
    (folder / "go.mod").write_text(_module(_download(f"k8s.io/kubernetes@v{KUBERNETES}", folder)))
    # etcd's version is the one that Kubernetes is tested with: its own module names it.
    (folder / "programs.go").write_text(f"//go:build programs\n\npackage programs\n\n{IMPORTS}\n")
    for name, package in PROGRAMS.items():
        _go("build", "-mod=mod", "-ldflags", FLAGS, "-o", name, package, folder=folder)


def _module(kubernetes: Path) -> str:
    """A module that needs Kubernetes, with the parts of it where they are published."""
    lines = (kubernetes / "go.mod").read_text().splitlines()
    go = next(line for line in lines if line.startswith("go "))
    parts = [line.split()[0] for line in lines if " => ./staging/" in line]
    replacing = [f"replace {part} => {part} {STAGED}" for part in parts]
    head = ["module programs", go, f"require k8s.io/kubernetes v{KUBERNETES}"]
    return "\n".join((*head, *replacing, ""))


def _download(module: str, folder: Path) -> Path:
    """The folder of a module's files."""
    said = _go("mod", "download", "-json", module, folder=folder)
    return Path(json.loads(said)["Dir"])


def _go(*arguments: str, folder: Path) -> bytes:
    command = (shutil.which("go") or "/usr/local/go/bin/go", *arguments)
    # Without a go.mod above it, what the checkout may say about Go does not matter.
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "GOWORK": "off"}, stdout=subprocess.PIPE, check=True
    )
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s FOLDER")
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder.resolve())
