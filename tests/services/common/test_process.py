"""What a process that serves does with itself."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator

import pytest

from services.common.process import (
    GC_THRESHOLD,
    disable_core_dumps,
    freeze_gc,
    raise_fd_limit,
)


@pytest.fixture(params=[resource.RLIMIT_NOFILE, resource.RLIMIT_CORE])
def limits(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A pair of limits of this process, the soft and the hard one; afterwards as they were."""
    before = resource.getrlimit(request.param)
    yield before
    resource.setrlimit(request.param, before)


@pytest.mark.parametrize("limits", [resource.RLIMIT_NOFILE], indirect=True)
def test_all_descriptors_are_taken(limits: tuple[int, int]) -> None:
    """The process may have as many as its unit or its shell could give."""
    raise_fd_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard == limits[1]


@pytest.mark.parametrize("limits", [resource.RLIMIT_CORE], indirect=True)
def test_nothing_is_dumped(limits: tuple[int, int]) -> None:
    """Where a crash would leave a file, it leaves none."""
    disable_core_dumps()
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, limits[1])


def test_what_stays_is_not_looked_at() -> None:
    """The garbage collector comes seldom, and has little to look at."""
    before = gc.get_threshold()
    try:
        freeze_gc()
        assert gc.get_threshold()[0] == GC_THRESHOLD
        assert gc.get_freeze_count() > len(gc.get_objects())
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
