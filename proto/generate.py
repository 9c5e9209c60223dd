"""Generator of proto/gen from the .proto files: `python proto/generate.py [OUT]`.

protoc generates the messages, mypy-protobuf the type stubs. Only files with a service get a
`_pb2_grpc` module, so that none is empty. `hatch_build.py` generates the modules of the wheel
`pomogator-proto` in the same way.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
ROOT = "pomogator"
"""Package of the generated modules, and folder of the sources."""

# protoc has no option for another package. It names modules in these two forms only; the names of
# messages, services and files, which are part of the contract, have neither form.
_MODULE = re.compile(rf"(?m)(^from |DESCRIPTOR, '){ROOT}\.")


def generate(out: Path, *, package: str = ROOT, blocking: bool = False) -> None:
    """Generate all modules below `out`, which is created if it is missing.

    Args:
        out: Folder that will contain `package`.
        package: Package that the modules are imported from.
        blocking: Whether stubs are typed for blocking channels, too, not only for asyncio.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = PROTO.glob(f"{ROOT}/**/*.proto")
    sources = sorted(path.relative_to(PROTO).as_posix() for path in found)
    services = [source for source in sources if source.endswith("_service.proto")]
    # protoc's own types and googleapis' annotations are in the installed wheels.
    includes = [f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}", f"-I{_googleapis()}"]
    stubs = f"--plugin={_program('protoc-gen-mypy')}"
    service_stubs = f"--plugin={_program('protoc-gen-mypy_grpc')}"
    options = "quiet" if blocking else "quiet,only_async"
    _protoc(includes, f"--python_out={out}", *sources)
    _protoc(includes, stubs, f"--mypy_out=quiet:{out}", *sources)
    _protoc(includes, f"--grpc_python_out={out}", *services)
    _protoc(includes, service_stubs, f"--mypy_grpc_out={options}:{out}", *services)
    if package != ROOT:
        _rename(out, package)


def _rename(out: Path, package: str) -> None:
    (out / ROOT).rename(out / package)
    for path in (out / package).rglob("*.py*"):
        path.write_text(_MODULE.sub(rf"\1{package}.", path.read_text()))


def _program(name: str) -> Path:
    """Find a plugin of protoc beside the interpreter, or on the PATH of an isolated build."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return Path(found)


def _googleapis() -> Path:
    annotations = files("google.api") / "annotations.proto"
    return Path(str(annotations)).parents[2]


def _protoc(includes: list[str], *arguments: str) -> None:
    if protoc.main(["protoc", *includes, *arguments]) != 0:
        raise SystemExit(f"protoc failed: {' '.join(arguments)}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO / "gen")
