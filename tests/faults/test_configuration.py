"""Clocks that jump, and configurations that change or are wrong, while calls run."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import aiohttp
import msgspec
import pytest

from services.clock import SystemClock
from services.config import ConfigError, LimitConfig, Secret
from services.domain.usage import Usage
from services.metering.holds import HoldTerms
from services.metering.ledger import Ledger
from services.storage.accounts import credit_account, ensure_account
from services.storage.audit import audit
from services.storage.postgres import PostgresDatabase
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    BEGIN,
    CHARGE,
    END,
    FINE,
    MODEL,
    PATH,
    STEADY,
    TEXT,
    fitting,
    reload_with,
)
from tests.faults.processes import asking, holds_are_closed, priced_configuration
from tests.stand.clock import JumpingClock
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.shell import refused_start
from tests.stand.upstream import FakeUpstream, json_answer

FILE = """
[[channels]]
name = "a"
dialect = "openai"
base_url = "{url}"
models = {{ "{model}" = "m" }}
"""


async def test_a_bad_file_changes_nothing_but_the_log(tmp_path: Path) -> None:
    """SIGHUP reads the file again: a bad one is only logged, a good one is used. Row 123."""
    async with FakeUpstream() as upstream:
        upstream.play(fitting)
        good = FILE.format(url=upstream.url, model="house/old")
        async with running_server(tmp_path, good) as server, aiohttp.ClientSession() as http:
            url = f"http://{await server.address('http')}{PATH}"
            headers = {"Authorization": f"Bearer {server.key}"}

            async def status(model: str) -> int:
                body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
                async with http.post(url, json=body, headers=headers) as answer:
                    await answer.read()
                    return answer.status

            (tmp_path / "pomogator.toml").write_text(f"{good}\nno_such_key = 1\n[")
            server.send_signal(signal.SIGHUP)
            refused = await server.event("config.refused")
            assert "pomogator.toml" in refused["problems"][0]
            assert await status("house/old") == 200

            renamed = FILE.format(url=upstream.url, model="house/new")
            (tmp_path / "pomogator.toml").write_text(renamed)
            server.send_signal(signal.SIGHUP)
            await server.event("config.reloaded")
            assert await status("house/new") == 200
            assert await status("house/old") == 400

            samples = await server.samples()
            for result in ("done", "refused"):
                labels = frozenset({("result", result)})
                assert samples["pomogator_config_reloads_total", labels] == 1


async def test_running_streams_keep_their_channel_and_price(open_stand: OpenStand) -> None:
    """A channel goes and a price rises: running calls end as they began, new ones use the new.

    Row 125.
    """
    stand = await open_stand()
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])
    config = stand.config
    dear = [
        msgspec.structs.replace(row, completion_usd_per_mtok=Decimal(200)) for row in config.models
    ]
    channels = [row for row in config.channels if row.name != "first"]

    async with stand.post() as answer:
        await answer.content.readuntil(b"canary-answer-")
        reload_with(
            stand, msgspec.structs.replace(config, channels=tuple(channels), models=tuple(dear))
        )
        goes_on.set()
        reply = await stand.read(answer)

    assert reply.events[-1] == "[DONE]"
    assert await stand.charged() == (1, CHARGE)
    assert (await stand.ask()).status == 200
    assert len(stand.second.requests) == 1
    assert await stand.charged() == (2, CHARGE + 10 * 1_000 + 5 * 200_000)


async def test_frequent_reloads_leave_nothing_behind(open_stand: OpenStand) -> None:
    """However often the file is read, calls go on, and nothing of old configurations stays.

    Row 126.
    """
    stand = await open_stand()
    stand.play(FINE)

    for _ in range(100):
        reload_with(stand, stand.config)

    assert (await stand.ask()).status == 200
    assert stand.metric("config_reloads_total", result="done") == 100


async def test_a_replaced_provider_key_is_used_from_the_next_call(open_stand: OpenStand) -> None:
    """After a provider refused our key, a new one is used from the next call on. Row 127."""
    stand = await open_stand()
    stand.play([json_answer({"error": {"message": "no"}}, 401)], FINE)
    stand.second.play(FINE)
    assert (await stand.ask()).status == 200
    assert len(stand.second.requests) == 1

    first, *others = stand.config.channels
    rotated = msgspec.structs.replace(first, key=Secret("sk-new"))
    reload_with(stand, msgspec.structs.replace(stand.config, channels=(rotated, *others)))
    assert (await stand.ask()).status == 200

    assert len(stand.second.requests) == 1
    assert stand.first.requests[-1].headers["authorization"] == "Bearer sk-new"


async def test_a_change_of_local_models_needs_a_restart(open_stand: OpenStand) -> None:
    """A reload that would need a restart is refused, and the old configuration stays. Row 123."""
    stand = await open_stand()
    stand.play(FINE)
    first, *others = stand.config.channels
    local = msgspec.structs.replace(first, base_url="", local="smollm2-135m")

    with pytest.raises(ConfigError):
        reload_with(stand, msgspec.structs.replace(stand.config, channels=(local, *others)))

    assert (await stand.ask()).status == 200


async def test_a_bad_file_ends_no_stream(tmp_path: Path) -> None:
    """A process whose file is bad says so in the log, and streams run to their end. Row 123."""
    goes_on = asyncio.Event()
    file = tmp_path / "pomogator.toml"
    async with FakeUpstream() as upstream:
        upstream.play([BEGIN, goes_on, END], [BEGIN, goes_on, END], FINE)
        good = priced_configuration(upstream.url)
        async with running_server(tmp_path, good) as server, AsyncExitStack() as stack:
            url = f"http://{await server.address('http')}{PATH}"
            running = [await stack.enter_async_context(asking(url, server.key)) for _ in range(2)]
            for number, bad in enumerate((good[:-20], f"{good}\nno_such_key = 1\n", ""), 1):
                file.unlink() if not bad else file.write_text(bad)
                server.send_signal(signal.SIGHUP)
                await reloads(server, "refused", number)
            goes_on.set()
            for answer in running:
                text = await answer.text()
                assert text.endswith("data: [DONE]\n\n")
                assert '"error"' not in text
            async with asking(url, server.key) as late:
                assert (await late.text()).endswith("data: [DONE]\n\n")
            server.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
    said = [line["problems"] for line in server.lines if line["event"] == "config.refused"]
    charges = [line["charge_nano_usd"] for line in server.lines if "charge_nano_usd" in line]
    assert charges == [CHARGE] * 3
    assert ["pomogator.toml" in problems[0] for problems in said] == [True] * 3
    assert "no_such_key" in said[1][0]
    file.write_text(good)
    assert (await holds_are_closed(tmp_path))["settled"] == 3


async def reloads(server: Server, result: str, count: int) -> None:
    """Waits until so many reloads have ended in that way."""
    labels = frozenset({("result", result)})
    async with asyncio.timeout(10):
        while True:
            samples = await server.samples()
            if samples.get(("pomogator_config_reloads_total", labels)) == count:
                return
            await asyncio.sleep(0.02)  # Nobody tells of it but by answering.


async def test_the_price_at_admission_is_charged(open_stand: OpenStand) -> None:
    """A price that changes twice during a call does not change its charge. Row 110."""
    stand = await open_stand()
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END], FINE)
    (mine,) = (row for row in stand.config.models if row.name == MODEL)
    async with stand.post() as answer:
        await answer.content.readuntil(b"canary-answer-")
        for usd in (Decimal(2000), Decimal(0)):
            changed = msgspec.structs.replace(mine, completion_usd_per_mtok=usd)
            reload_with(stand, msgspec.structs.replace(stand.config, models=(changed,)))
        goes_on.set()
        await stand.read(answer)

    assert await stand.charged() == (1, CHARGE)
    (line,) = stand.log.of("call.ended", end="stop")
    assert line["charge_nano_usd"] == CHARGE
    assert line["charge_nano_usd"] <= line["hold_nano_usd"] < 2 * 50 * 2_000 + 10**6
    assert (await stand.ask()).status == 200
    assert await stand.charged() == (2, CHARGE + 10 * 1_000)


@pytest.mark.parametrize(
    ("arguments", "variables", "reason"),
    [
        ((), {"POMOGATOR_PEPPER": ""}, "a pepper must have at least 16 bytes"),
        ((), {"POMOGATOR_PEPPER": "default"}, "a pepper must have at least 16 bytes"),
        (("--ops", "127.0.0.1:0"), {}, "POMOGATOR_OPS_TOKEN"),
        (("--ops", "127.0.0.1:0"), {"POMOGATOR_OPS_TOKEN": ""}, "POMOGATOR_OPS_TOKEN"),
        (("--ops-rest", "127.0.0.1:0"), {"POMOGATOR_OPS_TOKEN": "admin"}, "POMOGATOR_OPS_TOKEN"),
        ((), {"A_KEY": ""}, "the variable A_KEY is not set"),
    ],
)
async def test_a_process_with_empty_or_weak_secrets_does_not_start(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], reason: str
) -> None:
    """A process whose secrets are empty or easy to guess does not start, and names them.

    Row 124.
    """
    file = tmp_path / "pomogator.toml"
    key = 'api_key_env = "A_KEY"\n'
    good = FILE.format(url="http://127.0.0.1:9", model="m")
    file.write_text(good + (key if "A_KEY" in variables else ""))
    log = await refused_start(tmp_path / "var", "--config", file, *arguments, env=variables)

    assert reason in log.splitlines()[-1]


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, -86_400.0, 40 * 86_400.0])
async def test_a_jump_of_the_date_ends_and_recovers_nothing(
    open_stand: OpenStand, jump_s: float
) -> None:
    """Running calls are neither ended, recovered nor counted twice; new ones are admitted.

    Row 121.
    """
    clock = JumpingClock()
    limits = (LimitConfig(key="*", rpm=3, concurrency=10),)
    stand = await open_stand(clock=clock, limits=limits)
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END], FINE)

    async with stand.post() as answer:
        await answer.content.readuntil(b"canary-answer-")
        clock.off_s = jump_s
        assert await stand.service.completions.pipeline.gate.ledger.sweep() == 0
        assert (await stand.ask()).content == TEXT
        assert stand.metric("holds_open") == 1
        goes_on.set()
        reply = await stand.read(answer)

    assert (reply.events[-1], reply.finishes) == ("[DONE]", ["stop"])
    assert await stand.charged() == (2, 2 * CHARGE)
    assert stand.log.of("holds.recovered") == []
    assert (await stand.ask(model=STEADY)).status == 200
    refused = await stand.ask(model=STEADY)
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert 0 < float(refused.headers["Retry-After"]) <= 60
    # The next call, which every test makes, is a good one too.
    reload_with(stand, msgspec.structs.replace(stand.config, limits=()))


@pytest.mark.parametrize("skew_s", [300.0, -300.0])
async def test_leases_go_by_the_databases_clock(postgres_url: str, skew_s: float) -> None:
    """Processes whose clocks differ do not take each other's holds. Row 122."""
    database = await PostgresDatabase.open(postgres_url)
    try:
        await database.write(ensure_account, "acme", 0)
        await database.write(credit_account, "acme", 100, "r1", 0)
        order = (HoldTerms(account="acme", key_id="k", model="m"), "r", 10)
        async with (
            Ledger(database, SystemClock()) as here,
            Ledger(database, JumpingClock(skew_s)) as there,
        ):
            hold, other = await here.reserve(*order), await there.reserve(*order)
            assert (await here.sweep(), await there.sweep()) == (0, 0)
            here.settle(hold, 7, Usage())
            there.settle(other, 5, Usage())
        result = await database.read(audit)
    finally:
        await database.close()

    assert result.findings == ()
    assert result.counts["settled"] == 2
