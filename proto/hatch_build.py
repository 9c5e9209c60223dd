"""Build hook of the wheel `pomogator-proto`: generates its modules from the contract.

The modules are in the package `pomogator_proto`, so the wheel shares no file with the wheel
`pomogator`, which has its own generated modules.
"""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "pomogator_proto"


class GeneratedModules(BuildHookInterface):  # type: ignore[type-arg]
    """Build hook that adds the generated modules to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the modules into a temporary folder."""
        self._folder = Path(mkdtemp())
        generate = runpy.run_path(str(Path(self.root) / "generate.py"))["generate"]
        generate(self._folder, package=PACKAGE, blocking=True)
        (self._folder / PACKAGE / "py.typed").touch()
        build_data["force_include"][str(self._folder / PACKAGE)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self._folder)
