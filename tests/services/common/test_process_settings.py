from __future__ import annotations

import gc
import resource
from collections.abc import Iterator

import pytest

from services.common.process_settings import (
    GC_THRESHOLD,
    disable_core_dumps,
    freeze_gc,
    raise_fd_limit,
)

FEW_DESCRIPTORS = 512


@pytest.fixture(params=[resource.RLIMIT_NOFILE, resource.RLIMIT_CORE])
def limits(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Limits of this process, neither of which is the wanted one yet. Restored afterwards."""
    before = resource.getrlimit(request.param)
    hard = before[1]
    soft = FEW_DESCRIPTORS if request.param == resource.RLIMIT_NOFILE else hard
    resource.setrlimit(request.param, (soft, hard))
    yield before
    resource.setrlimit(request.param, before)


@pytest.mark.parametrize("limits", [resource.RLIMIT_NOFILE], indirect=True)
def test_the_limit_of_descriptors_is_raised_to_the_hard_limit(limits: tuple[int, int]) -> None:
    """Units and shells set a lower soft limit."""
    raise_fd_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard == limits[1]


@pytest.mark.parametrize("limits", [resource.RLIMIT_CORE], indirect=True)
def test_a_crash_leaves_no_core_file(limits: tuple[int, int]) -> None:
    """The soft limit of its size is 0."""
    disable_core_dumps()
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, limits[1])


def test_objects_of_the_start_are_exempt_from_garbage_collection() -> None:
    """And collections are rarer than by default."""
    before = gc.get_threshold()
    gc.unfreeze()  # The tests' own, which are frozen again in what follows.
    try:
        freeze_gc()
        assert gc.get_threshold()[0] == GC_THRESHOLD
        assert gc.get_freeze_count() > len(gc.get_objects())
    finally:
        gc.set_threshold(*before)
