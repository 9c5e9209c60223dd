"""A gateway with all its HTTP listeners, over a provider of every dialect, and its log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import grpc
from aiohttp import web
from pomogator.accounts.v1 import key_service_pb2 as keys
from yarl import URL

from gateway.app import create_app
from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.console.console_app import create_console_app
from gateway.console.operator_access import OperatorAccess
from gateway.operators_app import create_operators_app
from gateway.overload.body_budget import BodyBudget
from gateway.rpc.service_channel import open_channel
from gateway.server import serving_console, serving_operators_rest, serving_rest
from services.config import BillingConfig, ChannelConfig, Config, ModelConfig
from services.rpc.listener import listening
from services.serving.core_backend import CoreBackend
from services.serving.server import open_service
from services.serving.service import Service
from tests.faults.dialect_answers import ANTHROPIC, FORMS, OPENAI, RESPONSES
from tests.stand.console_stand import SECRET, TOKEN, browser
from tests.stand.embedding_provider import EmbeddingProvider
from tests.stand.fault_log import FaultLog, fault_log
from tests.stand.gateway import Transport, stored
from tests.stand.operators import Operators
from tests.stand.upstream import FakeUpstream, Request, Script, json_answer

EDGE = EdgeConfig(
    console=True,
    console_secret=SECRET,
    body_bytes_max=2**20,
    body_timeout_s=1,
    headers_timeout_s=1,
    deadline_s=60,
)
EMBEDDING_MODEL = "house/embed"
MODELS = tuple(f"house/{form.dialect}" for form in FORMS)
CREDIT_NANO = 10**12
LISTENERS = ("public", "operators", "console")


@dataclass(frozen=True, slots=True)
class ListenersStand:
    """A running gateway."""

    service: Service
    addresses: Mapping[str, str]
    """HOST:PORT of each of `LISTENERS`."""
    routes: Mapping[str, Sequence[tuple[str, str]]]
    """The methods and path templates of each."""
    public: grpc.aio.Channel
    """Leads to the callers' services."""
    operators: grpc.aio.Channel
    """Leads to the operators' services."""
    upstream: FakeUpstream
    log: FaultLog
    cookies: dict[str, str] = field(default_factory=dict)
    """The console's cookie of each role."""
    csrf: dict[str, str] = field(default_factory=dict)
    """The token of the forms of each role."""

    async def sign_in(self, role: str, secret: str) -> None:
        """Sign in to the console with a key or the operators' token."""
        async with browser(f"http://{self.addresses['console']}") as client:
            assert (await client.sign_in(secret, "ann")).status == 303
            jar = client.http.cookie_jar.filter_cookies(URL(client.url))
            self.cookies[role] = "; ".join(f"{name}={each.value}" for name, each in jar.items())
            self.csrf[role] = client.csrf


def answer(request: Request) -> Script:
    """An answer of the API that the path names."""
    path = request.path
    if path.endswith(("/count_tokens", "/input_tokens")):
        return [json_answer({"input_tokens": 9})]
    if path.endswith("/messages"):
        return ANTHROPIC.fitting(request)
    return (RESPONSES if path.endswith("/responses") else OPENAI).fitting(request)


def configuration(upstream: str, embeddings: str, database_url: str) -> Config:
    """A channel of each dialect and one of embeddings, all with prices."""
    channels = [
        ChannelConfig(
            name=form.dialect, dialect=form.dialect, base_url=upstream, models={name: "m"}
        )
        for form, name in zip(FORMS, MODELS, strict=True)
    ]
    embed = {EMBEDDING_MODEL: "text-embedding-3-small"}
    channels.append(
        ChannelConfig(name="embed", dialect="openai", base_url=embeddings, models=embed)
    )
    price = Decimal(1)
    models = [
        ModelConfig(name=name, prompt_usd_per_mtok=price, completion_usd_per_mtok=price)
        for name in MODELS
    ]
    models.append(ModelConfig(name=EMBEDDING_MODEL, prompt_usd_per_mtok=price))
    return Config(
        channels=tuple(channels),
        models=tuple(models),
        billing=BillingConfig(provider_tools="free"),
        state=stored(database_url),
    )


@asynccontextmanager
async def listeners_stand(
    state: Path, transport: Transport = "in-process", database_url: str = ""
) -> AsyncIterator[ListenersStand]:
    """A running gateway with its state in `state`, or at `database_url`."""
    async with AsyncExitStack() as stack:
        log = stack.enter_context(fault_log())
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(answer)
        embeddings = await stack.enter_async_context(EmbeddingProvider())
        config = configuration(upstream.url, embeddings.url, database_url)
        service = await stack.enter_async_context(open_service(config, state, {}))
        operators = await stack.enter_async_context(service.operators_channel())
        channel = await stack.enter_async_context(service.channel())
        backend: Backend | None = CoreBackend(service, channel)
        if transport != "in-process":
            local = listening(service.register, "127.0.0.1:0", grace_s=0)
            bound = await stack.enter_async_context(local)
            channel = await stack.enter_async_context(open_channel(bound, EDGE))
            await channel.channel_ready()
            backend = None
        bodies = BodyBudget(0)
        access = OperatorAccess(operators, TOKEN, bodies)
        console_backend = backend or CoreBackend(service, channel)
        openings = (
            serving_rest(channel, "127.0.0.1:0", EDGE, backend=backend),
            serving_operators_rest(operators, "127.0.0.1:0", TOKEN, EDGE),
            serving_console(
                channel,
                "127.0.0.1:0",
                EDGE,
                backend=console_backend,
                operators=access,
                bodies=bodies,
            ),
        )
        bound_to = [await stack.enter_async_context(each) for each in openings]
        apps = (
            create_app(channel, EDGE, backend=console_backend),
            create_operators_app(operators, TOKEN, EDGE),
            create_console_app(channel, console_backend, EDGE, access, bodies),
        )
        yield ListenersStand(
            service,
            dict(zip(LISTENERS, bound_to, strict=True)),
            {name: routes_of(app) for name, app in zip(LISTENERS, apps, strict=True)},
            channel,
            operators,
            upstream,
            log,
        )


async def open_account(stand: ListenersStand, account: str) -> tuple[str, str]:
    """Open a paid account. Return the ID and the secret of a key that administers it."""
    operators = Operators(stand.operators)
    made = await operators.create_key(account, keys.KeyScope(administers_account=True))
    await operators.credit(account, CREDIT_NANO, f"credit-{account}")
    return made


def routes_of(app: web.Application) -> Sequence[tuple[str, str]]:
    """The methods and path templates of an application."""
    found = {
        (route.method, getattr(route.resource, "http_route", route.resource.canonical))
        for route in app.router.routes()
        if route.resource is not None
    }
    return sorted(found)
