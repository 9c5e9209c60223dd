from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from services.common.metrics_page import serving_metrics


async def ready() -> bool:
    """Calls are accepted."""
    return True


@pytest.mark.parametrize(("able", "status"), [(True, 200), (False, 503)])
async def test_probes(*, able: bool, status: int) -> None:
    """The process lives as long as it answers; it is ready as long as calls are taken."""

    async def is_ready() -> bool:
        return able

    async with (
        serving_metrics(CollectorRegistry(), "127.0.0.1:0", is_ready) as bound,
        aiohttp.ClientSession(f"http://{bound}") as http,
    ):
        async with http.get("/healthz") as answer:
            assert answer.status == 200
        async with http.get("/readyz") as answer:
            assert answer.status == status


async def test_without_a_check_there_are_no_probes() -> None:
    """Only the metrics are served."""
    async with (
        serving_metrics(CollectorRegistry(), "127.0.0.1:0") as bound,
        aiohttp.ClientSession(f"http://{bound}") as http,
    ):
        for path, status in (("/metrics", 200), ("/healthz", 404), ("/readyz", 404), ("/", 404)):
            async with http.get(path) as answer:
                assert answer.status == status


async def test_a_taken_address_is_told_in_the_systems_words() -> None:
    """The error names the address."""
    async with serving_metrics(CollectorRegistry(), "127.0.0.1:0") as bound:
        with pytest.raises(OSError, match=f"^cannot listen on {bound}: Address already in use$"):
            async with serving_metrics(CollectorRegistry(), bound):
                pass


@pytest.mark.parametrize("address", ["9090", ":9090", "host:port", "256.0.0.1:0"])
async def test_an_address_that_cannot_be_had(address: str) -> None:
    """What is no address, or not ours, is an error before anything is served."""
    with pytest.raises((OSError, ValueError), match=r".+"):
        async with serving_metrics(CollectorRegistry(), address, ready):
            pass
