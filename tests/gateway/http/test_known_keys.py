from __future__ import annotations

import pytest

from gateway.errors import ApiError
from gateway.http.body_admission import BodyAdmission
from gateway.http.known_keys import KEY_FIRST_BYTES, KEYS_MAX, TTL_S, KnownKeys, no_lookup
from services.domain.error_reason import ErrorReason


class Service:
    """A service that knows some keys."""

    def __init__(self, *valid: str) -> None:
        self.asked: list[str] = []
        self._valid = valid

    async def __call__(self, key: str, _request_id: str) -> bool:
        """Accept a valid key."""
        self.asked.append(key)
        if key not in self._valid:
            raise ApiError(ErrorReason.INVALID_API_KEY, "Invalid API key")
        return True


async def test_the_service_is_asked_once_a_minute() -> None:
    """Each accepted key is known for a minute."""
    service, now = Service("a"), [0.0]
    keys = KnownKeys(service, lambda: now[0])
    for _ in range(3):
        await keys.require("a", "req-1")
    assert service.asked == ["a"]
    now[0] = TTL_S
    assert not keys.has("a")
    await keys.require("a", "req-1")
    assert service.asked == ["a", "a"]


async def test_a_refused_key_stays_unknown() -> None:
    """The service refuses it each time."""
    keys = KnownKeys(Service())
    for _ in range(2):
        with pytest.raises(ApiError, match="Invalid API key"):
            await keys.require("b", "req-1")
    assert not keys.has("b")


async def test_bodies_are_read_while_the_service_cannot_be_asked() -> None:
    """The key stays unknown."""
    keys = KnownKeys(no_lookup)
    await keys.require("a", "req-1")
    assert not keys.has("a")


def test_the_number_of_keys_is_bounded() -> None:
    """The key that was accepted longest ago is dropped first."""
    keys = KnownKeys()
    for number in range(KEYS_MAX):
        keys.add(str(number))
    keys.add("0")
    keys.add("new")
    assert (keys.has("0"), keys.has("1"), keys.has("new")) == (True, False, True)


@pytest.mark.parametrize(
    ("length", "needed"), [(None, True), (KEY_FIRST_BYTES, False), (KEY_FIRST_BYTES + 1, True)]
)
def test_only_bodies_that_may_be_large_need_a_known_key(length: int | None, needed: bool) -> None:
    """A length that is not declared may be any."""
    admission = BodyAdmission()
    assert admission.needs_key(length, "a") is needed
    admission.known_keys.add("a")
    assert not admission.needs_key(length, "a")
