"""The sample service, compiled once."""

from __future__ import annotations

import pytest

from tests.gateway.transcoding.sample_service import CompiledService


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> CompiledService:
    """The service with every kind of binding and field that the edge serves."""
    return CompiledService.compiled(tmp_path_factory.mktemp("sample"))
