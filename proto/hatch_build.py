"""Makes the modules of the wheel `pomogator-proto` from the contract, whenever it is built.

They are imported from `pomogator_proto`, so that no file of the wheel is one of the wheel
`pomogator`, which brings its own.
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
    """Adds the generated modules to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates them into a folder that is gone when the wheel is there."""
        self._folder = Path(mkdtemp())
        generate = runpy.run_path(str(Path(self.root) / "generate.py"))["generate"]
        generate(self._folder, package=PACKAGE, both_ways=True)
        (self._folder / PACKAGE / "py.typed").touch()
        build_data["force_include"][str(self._folder / PACKAGE)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the folder."""
        shutil.rmtree(self._folder)
