"""What runs the service, and what looks at its configuration."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from services.cli.operator_client import ops_address
from services.cli.output import say
from services.config import load
from services.routing.catalog import Catalog
from services.serving.options import ServeOptions, TlsOptions
from services.serving.serve import run


async def serve(arguments: Namespace, _env: Mapping[str, str]) -> None:
    """Serves until it is told to stop."""
    await run(
        ServeOptions(
            config_path=arguments.config,
            state=arguments.state,
            rest=arguments.rest,
            grpc=arguments.grpc,
            ops=ops_address(arguments),
            ops_rest=arguments.ops_rest,
            metrics=arguments.metrics,
            shutdown_delay_s=arguments.shutdown_delay,
            drain_timeout_s=arguments.drain_timeout,
            only=arguments.only,
            watch_config=arguments.watch_config,
            reflection=arguments.reflection,
            target=arguments.target,
            tls=_tls(arguments),
        )
    )


def _tls(arguments: Namespace) -> TlsOptions:
    return TlsOptions(
        certificate=arguments.tls_cert,
        key=arguments.tls_key,
        client_ca=arguments.tls_client_ca,
        target_ca=arguments.target_ca,
        target_certificate=arguments.target_cert,
        target_key=arguments.target_key,
        insecure=arguments.insecure,
    )


async def check(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Says whether the configuration can be used, with the loader that the server uses."""
    config = load(arguments.config, env)
    routes = Catalog(config, create_time_s=0).routes
    say(f"OK: {len(config.channels)} channels, {len(routes)} models")


async def list_models(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Prints the public names, one a line."""
    for route in Catalog(load(arguments.config, env), create_time_s=0).routes:
        say(route.model)
