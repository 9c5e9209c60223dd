"""What gives way while little memory is left."""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import dataclass

import pytest

from gateway.overload.memory_monitor import (
    AGAIN_AFTER,
    FREE_AGAIN,
    LOW,
    OUT,
    SHORT,
    WORTH_BYTES,
    MemoryMonitor,
    watching,
)


@dataclass(slots=True)
class Container:
    """Where a test says how much is in use."""

    used: float = 0.0

    def used_share(self) -> float:
        """As much as the test says."""
        return self.used


@dataclass(slots=True)
class Client:
    """A connection that knows only what is kept for it."""

    held_bytes: int
    is_cut: bool = False

    def cut(self) -> None:
        """Then nothing is."""
        self.is_cut, self.held_bytes = True, 0


@pytest.fixture
def container() -> Container:
    """With nothing in it."""
    return Container()


@pytest.fixture
def memory(container: Container) -> MemoryMonitor:
    """Of that container."""
    return MemoryMonitor(container.used_share)


def test_stages(
    memory: MemoryMonitor, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """They come one after the other, and end each where some is free again; the log tells it."""
    seen = []
    for container.used in (LOW - 0.001, LOW, SHORT, OUT, OUT - 0.02, SHORT - 0.02, 0.5):
        memory.look()
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
    assert [record.getMessage() for record in caplog.records] == [
        "memory.low.begins",
        "memory.short.begins",
        "memory.out.begins",
        "memory.out.ends",
        "memory.low.ends",
        "memory.short.ends",
    ]


def test_does_not_flutter(
    memory: MemoryMonitor, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Around its border a stage begins once."""
    for container.used in (SHORT, SHORT - FREE_AGAIN / 2, SHORT) * 10:
        memory.look()
    events = [record.getMessage() for record in caplog.records]
    assert events.count("memory.short.begins") == 1
    assert "memory.short.ends" not in events


def test_cuts_who_holds_most(memory: MemoryMonitor, container: Container) -> None:
    """One at a time, of all listeners, only while it is needed, and as long as it helps."""
    clients = [Client(5 * WORTH_BYTES), Client(0), Client(9 * WORTH_BYTES), Client(WORTH_BYTES)]
    memory.watch(lambda: clients[:2])
    memory.watch(lambda: clients[2:])
    cut = []
    for container.used in (SHORT, 0.999, 0.99, OUT, 0.9):
        memory.look()
        cut.append([number for number, client in enumerate(clients) if client.is_cut])

    assert cut == [[], [2], [0, 2], [0, 2, 3], [0, 2, 3]]
    assert memory.cuts == 3


def test_a_cut_that_does_not_help(memory: MemoryMonitor, container: Container) -> None:
    """Somebody else has taken the memory: the next one is cut only after a while."""
    clients = [Client(9 * WORTH_BYTES) for _ in range(10)]
    memory.watch(lambda: clients)
    container.used = 1.0
    for _ in range(1 + AGAIN_AFTER):
        memory.look()

    assert memory.cuts == 2


def test_gives_back_what_was_freed(memory: MemoryMonitor, container: Container) -> None:
    """When it becomes low, now and then while it is, and after each cut."""
    memory.watch(lambda: [Client(WORTH_BYTES)])
    wanted = []
    for container.used in (0.5, LOW, LOW, SHORT, OUT, OUT, 0.5):
        memory.look()
        wanted.append(memory.wants_back)
    assert wanted == [False, True, False, False, True, False, False]

    container.used = LOW
    wanted = []
    for _ in range(2 * AGAIN_AFTER):
        memory.look()
        wanted.append(memory.wants_back)
    assert [number for number, wants in enumerate(wanted) if wants] == [0, AGAIN_AFTER]


def test_it_cannot_be_said(caplog: pytest.LogCaptureFixture) -> None:
    """As without a free descriptor: then it is as it was."""
    shares = iter([SHORT])

    def read() -> float:
        for share in shares:
            return share
        raise OSError(errno.EMFILE, "Too many open files")

    memory = MemoryMonitor(read)
    for _ in range(3):
        memory.look()

    assert (memory.is_short, memory.used_share) == (True, SHORT)
    assert [record.getMessage() for record in caplog.records] == [
        "memory.low.begins",
        "memory.short.begins",
    ]


def test_cuts_nobody_in_vain(memory: MemoryMonitor, container: Container) -> None:
    """Where somebody else has taken the memory, clients cannot give it back."""
    client = Client(WORTH_BYTES - 1)
    memory.watch(lambda: [client])
    container.used = 1.0
    memory.look()

    assert (client.is_cut, memory.cuts) == (False, 0)


async def test_is_watched(
    memory: MemoryMonitor, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Until nobody wants to know any more."""
    caplog.set_level(logging.WARNING)
    container.used = SHORT
    async with asyncio.timeout(10), watching(memory):
        while not memory.is_short:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)

    assert memory.used_share == SHORT
    assert "memory" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_look_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Is told, and is not the last one."""
    looks = 0
    looked = asyncio.Event()

    def read() -> float:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise MemoryError
        looked.set()
        return 0.5

    memory = MemoryMonitor(read)
    async with asyncio.timeout(10), watching(memory):
        await looked.wait()

    assert [record.getMessage() for record in caplog.records] == ["memory.unknown"]
    assert memory.used_share == 0.5
