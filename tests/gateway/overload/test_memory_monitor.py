"""Load shedding under memory pressure."""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import dataclass

import pytest

from gateway.overload.memory_monitor import ConnectionMemory, MemoryMonitor, monitoring
from gateway.overload.thresholds import (
    CHECKS_PER_REPEAT,
    CLOSE_BYTES_MIN,
    MEMORY_CRITICAL,
    MEMORY_HYSTERESIS,
    MEMORY_LOW,
    MEMORY_SHORT,
)
from tests.stand.polling import until


@dataclass(slots=True)
class Container:
    """The memory usage that a test sets."""

    used: float = 0.0

    def used_share(self) -> float:
        """The usage that the test has set."""
        return self.used


@dataclass(slots=True)
class Client:
    """A connection that holds so much memory."""

    held_bytes: int
    is_closed: bool = False

    def close(self) -> None:
        """Hold nothing any more."""
        self.is_closed, self.held_bytes = True, 0


def held(client: Client) -> ConnectionMemory:
    """The connection as a listener shows it."""
    return ConnectionMemory(client.held_bytes, client.close)


def stages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The events of stages in the log."""
    return [(each.getMessage(), vars(each)["stage"]) for each in caplog.records]


@pytest.fixture
def container() -> Container:
    """An empty container."""
    return Container()


@pytest.fixture
def memory(container: Container) -> MemoryMonitor:
    """The monitor of that container."""
    return MemoryMonitor(container.used_share)


def test_stages_follow_usage(
    memory: MemoryMonitor, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is entered at its threshold and left 3 % below it, and both are logged."""
    seen = []
    for container.used in (
        MEMORY_LOW - 0.001,
        MEMORY_LOW,
        MEMORY_SHORT,
        MEMORY_CRITICAL,
        MEMORY_CRITICAL - 0.02,
        MEMORY_SHORT - 0.02,
        0.5,
    ):
        memory.check()
        seen.append((memory.is_low, memory.is_short))
    assert seen == [
        (False, False),
        (True, False),
        (True, True),
        (True, True),
        (True, True),
        (True, True),
        (False, False),
    ]
    assert stages(caplog) == [
        ("memory_stage.started", "low"),
        ("memory_stage.started", "short"),
        ("memory_stage.started", "critical"),
        ("memory_stage.ended", "critical"),
        ("memory_stage.ended", "low"),
        ("memory_stage.ended", "short"),
    ]


def test_usage_around_a_threshold_enters_a_stage_once(
    memory: MemoryMonitor, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """The stage has hysteresis."""
    for container.used in (MEMORY_SHORT, MEMORY_SHORT - MEMORY_HYSTERESIS / 2, MEMORY_SHORT) * 10:
        memory.check()
    assert stages(caplog).count(("memory_stage.started", "short")) == 1
    assert ("memory_stage.ended", "short") not in stages(caplog)


def test_the_connection_that_holds_most_is_closed(
    memory: MemoryMonitor, container: Container
) -> None:
    """One at a time, of all listeners, while usage is critical and each close lowers it."""
    clients = [
        Client(5 * CLOSE_BYTES_MIN),
        Client(0),
        Client(9 * CLOSE_BYTES_MIN),
        Client(CLOSE_BYTES_MIN),
    ]
    memory.add_connections(lambda: map(held, clients[:2]))
    memory.add_connections(lambda: map(held, clients[2:]))
    closed = []
    for container.used in (MEMORY_SHORT, 0.999, 0.99, MEMORY_CRITICAL, 0.9):
        memory.check()
        closed.append([number for number, client in enumerate(clients) if client.is_closed])

    assert closed == [[], [2], [0, 2], [0, 2, 3], [0, 2, 3]]
    assert memory.closed_connections == 3


def test_a_close_that_frees_nothing_is_repeated_late(
    memory: MemoryMonitor, container: Container
) -> None:
    """Another process has used the memory: the next close follows 20 checks later."""
    clients = [Client(9 * CLOSE_BYTES_MIN) for _ in range(10)]
    memory.add_connections(lambda: map(held, clients))
    container.used = 1.0
    for _ in range(1 + CHECKS_PER_REPEAT):
        memory.check()

    assert memory.closed_connections == 2


def test_freed_memory_returns_to_the_kernel(memory: MemoryMonitor, container: Container) -> None:
    """The first check of the stage, every 20th one, and each close of a connection trigger it."""
    memory.add_connections(lambda: [held(Client(CLOSE_BYTES_MIN))])
    wanted = []
    for container.used in (
        0.5,
        MEMORY_LOW,
        MEMORY_LOW,
        MEMORY_SHORT,
        MEMORY_CRITICAL,
        MEMORY_CRITICAL,
        0.5,
    ):
        memory.check()
        wanted.append(memory.should_trim)
    assert wanted == [False, True, False, False, True, False, False]

    container.used = MEMORY_LOW
    wanted = []
    for _ in range(2 * CHECKS_PER_REPEAT):
        memory.check()
        wanted.append(memory.should_trim)
    assert [number for number, wants in enumerate(wanted) if wants] == [0, CHECKS_PER_REPEAT]


def test_usage_that_cannot_be_read_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """Reading fails, for one, without a free descriptor."""
    shares = iter([MEMORY_SHORT])

    def read() -> float:
        for share in shares:
            return share
        raise OSError(errno.EMFILE, "Too many open files")

    memory = MemoryMonitor(read)
    for _ in range(3):
        memory.check()

    assert (memory.is_short, memory.used_share) == (True, MEMORY_SHORT)
    assert stages(caplog) == [
        ("memory_stage.started", "low"),
        ("memory_stage.started", "short"),
    ]


def test_small_connections_are_not_closed(memory: MemoryMonitor, container: Container) -> None:
    """Closing them would free next to nothing."""
    client = Client(CLOSE_BYTES_MIN - 1)
    memory.add_connections(lambda: [held(client)])
    container.used = 1.0
    memory.check()

    assert (client.is_closed, memory.closed_connections) == (False, 0)


async def test_memory_is_checked_until_the_context_ends(
    memory: MemoryMonitor, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """The task ends with the context."""
    caplog.set_level(logging.WARNING)
    container.used = MEMORY_SHORT
    async with monitoring(memory):
        await until(lambda: memory.is_short)

    assert memory.used_share == MEMORY_SHORT
    assert "memory" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_check_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The checks after it go on."""
    checks = 0
    checked = asyncio.Event()

    def read() -> float:
        nonlocal checks
        checks += 1
        if checks == 1:
            raise MemoryError
        checked.set()
        return 0.5

    memory = MemoryMonitor(read)
    async with asyncio.timeout(10), monitoring(memory):
        await checked.wait()

    assert [record.getMessage() for record in caplog.records] == ["memory_check.failed"]
    assert memory.used_share == 0.5
