"""The torture service, compiled once."""

from __future__ import annotations

import pytest

from tests.gateway.transcoding.torture import Torture


@pytest.fixture(scope="session")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Torture:
    """The service that uses everything."""
    return Torture.compiled(tmp_path_factory.mktemp("torture"))
