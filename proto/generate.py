"""Generates proto/gen from the .proto files: `python proto/generate.py [OUT]`.

Messages come from protoc itself, type stubs from mypy-protobuf. Services get a
`_pb2_grpc` module; files without a service do not, so that none is empty.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Writes all generated modules below `out`, which is made if it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    found = PROTO.glob("pomogator/**/*.proto")
    sources = sorted(path.relative_to(PROTO).as_posix() for path in found)
    services = [source for source in sources if source.endswith("_service.proto")]
    # protoc's own types and googleapis' annotations come with the installed wheels.
    includes = [f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}", f"-I{_googleapis()}"]
    scripts = Path(sys.executable).parent
    stubs = f"--plugin={scripts / 'protoc-gen-mypy'}"
    service_stubs = f"--plugin={scripts / 'protoc-gen-mypy_grpc'}"
    _protoc(includes, f"--python_out={out}", *sources)
    _protoc(includes, stubs, f"--mypy_out=quiet:{out}", *sources)
    _protoc(includes, f"--grpc_python_out={out}", *services)
    _protoc(includes, service_stubs, f"--mypy_grpc_out=quiet,only_async:{out}", *services)


def _googleapis() -> Path:
    annotations = files("google.api") / "annotations.proto"
    return Path(str(annotations)).parents[2]


def _protoc(includes: list[str], *arguments: str) -> None:
    if protoc.main(["protoc", *includes, *arguments]) != 0:
        raise SystemExit(f"protoc failed: {' '.join(arguments)}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO / "gen")
