"""What gives way while little memory is left."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import pytest

from gateway.memory import FREE_AGAIN, LOW, OUT, SHORT, WORTH_BYTES, Memory, watching


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
def memory(container: Container) -> Memory:
    """Of that container."""
    return Memory(container.used_share)


def test_stages(memory: Memory, container: Container, caplog: pytest.LogCaptureFixture) -> None:
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
    memory: Memory, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Around its border a stage begins once."""
    for container.used in (SHORT, SHORT - FREE_AGAIN / 2, SHORT) * 10:
        memory.look()
    events = [record.getMessage() for record in caplog.records]
    assert events.count("memory.short.begins") == 1
    assert "memory.short.ends" not in events


def test_cuts_who_holds_most(memory: Memory, container: Container) -> None:
    """One at a time, of all listeners, and only while it is needed."""
    first, second, third = clients = [Client(5 * WORTH_BYTES), Client(0), Client(9 * WORTH_BYTES)]
    memory.watch(lambda: clients[:2])
    memory.watch(lambda: clients[2:])
    container.used = SHORT
    memory.look()
    assert not any(client.is_cut for client in clients)

    container.used = OUT
    memory.look()
    assert [client.is_cut for client in clients] == [False, False, True]
    memory.look()
    assert (first.is_cut, second.is_cut, third.is_cut, memory.cuts) == (True, False, True, 2)


def test_cuts_nobody_in_vain(memory: Memory, container: Container) -> None:
    """Where somebody else has taken the memory, clients cannot give it back."""
    client = Client(WORTH_BYTES - 1)
    memory.watch(lambda: [client])
    container.used = 1.0
    memory.look()

    assert (client.is_cut, memory.cuts) == (False, 0)


async def test_is_watched(
    memory: Memory, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Until nobody wants to know any more."""
    caplog.set_level(logging.WARNING)
    container.used = SHORT
    async with asyncio.timeout(10), watching(memory):
        while not memory.is_short:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)

    assert memory.used_share == SHORT
    assert "memory" not in {task.get_name() for task in asyncio.all_tasks()}
