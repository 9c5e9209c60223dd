"""The measurement of key timing, with a fake clock, and once with the real look-up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from services.common.key_format import new_secret, well_formed
from tests.nightly.key_timing import KINDS, ROUNDS, Medians, guess, leaks, measure, run

SECRETS = [new_secret() for _ in range(7)]


class Clock:
    """A clock that advances by attempts, with noise in some of them."""

    def __init__(self, secrets: Sequence[str], *, leak: int) -> None:
        self.now = 0
        self._secrets = secrets
        self._leak = leak
        self._attempts = 0

    async def attempt(self, guessed: str) -> None:
        """Takes a thousand, and more for each character that is right, if that leaks."""
        self._attempts += 1
        self.now += 1000 if self._attempts % 10 else 1_000_000
        right = max(map(len, (_common(guessed, secret) for secret in self._secrets)))
        self.now += self._leak * right


def _common(one: str, other: str) -> str:
    pairs = zip(one, other, strict=True)
    end = next((index for index, (a, b) in enumerate(pairs) if a != b), len(one))
    return one[:end]


@pytest.mark.parametrize("right", KINDS.values())
def test_guesses_are_as_right_as_is_said(right: int) -> None:
    """Guesses are well-formed, share the key's prefix, and are all different."""
    guesses = {guess(SECRETS[0], right) for _ in range(10)}

    assert len(guesses) == 10
    assert all(well_formed(each) and each[:right] == SECRETS[0][:right] for each in guesses)
    assert SECRETS[0] not in guesses


@pytest.mark.parametrize(("leak", "found"), [(0, False), (10, True)])
async def test_a_leak_is_found_under_noise(leak: int, *, found: bool) -> None:
    """A hundredth more time for each character that is right is seen, noise is not."""
    clock = Clock(SECRETS, leak=leak)

    async def measured() -> Medians:
        return await measure(clock.attempt, SECRETS, 50, lambda: clock.now)

    assert await leaks(measured, 0.05) is found


@pytest.mark.parametrize(
    ("spreads", "found"),
    [([0.01], False), ([0.2] * (ROUNDS - 1) + [0.01], False), ([0.2] * ROUNDS, True)],
)
async def test_only_what_stays_is_a_leak(spreads: Sequence[float], *, found: bool) -> None:
    """Medians that come together once were apart by chance; the measurement ends."""
    left = iter(spreads)

    async def measured() -> Medians:
        return {"one": 100.0, "other": 100.0 * (1 + next(left))}

    assert await leaks(measured, 0.05) is found
    assert list(left) == []


async def test_real_keys_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A short run says of each kind how long it took, and nothing is made of that here."""
    await run(tmp_path, tries=20, bound=float("inf"))

    printed = capsys.readouterr().out
    assert all(kind in printed for kind in (*KINDS, "apart"))
