"""The key that the first start makes, and how to use it.

The key is unlimited, so it is made only where its output does not end up in a log: on a terminal,
or if a flag asks for it.
"""

from __future__ import annotations

import logging
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from services.accounts.key_maker import KeyMaker
from services.common.addresses import join_address, split_address
from services.config import Config
from services.serving.missing_models import NO_MODELS

log = logging.getLogger(__name__)

PROGRAM = "pomogator"
STATE = Path("var")
"""The state that commands use without `--state`."""

FIRST_KEY = """
This is the first start: here is a key. It is shown only now, and it is unlimited: its calls need
no balance. `pomogator keys create` makes others.

  {key}
{console}
Send a request:

  curl {url}/v1/chat/completions \\
    -H "Content-Type: application/json" -H "Authorization: Bearer {key}" \\
    -d '{{"model": "{model}", "stream": true,
         "messages": [{{"role": "user", "content": "Hello!"}}]}}'
"""

LATER_START = """
Serving at {url}. Create a key:

  {program} keys create --account NAME{state}
{console}"""

CONSOLE = """
Open the console in a browser, and sign in with a key{operators}:

  {url}
"""

OPERATORS = ", or as an operator with the token in\n{file}"

REMEDY = (
    "pomogator accounts create NAME --credit USD; pomogator keys create --account NAME; or start "
    "with --print-first-key"
)


@dataclass(frozen=True, slots=True)
class ServedUrls:
    """URLs of the listeners, for clients on this machine."""

    api: str
    """Base URL of the REST API, without a path."""
    console: str = ""
    """URL of the console; empty where no console is served."""
    token_file: Path | None = None
    """File with the token of operators at the console. None: they have another one."""

    def fill(self, text: str, **values: str) -> str:
        """Return the text with these URLs and values."""
        operators = OPERATORS.format(file=self.token_file) if self.token_file else ""
        console = CONSOLE.format(url=self.console, operators=operators) if self.console else ""
        return text.format(url=self.api, console=console, **values)


def client_address(listener: str) -> str:
    """Return the address of a listener at HOST:PORT, for a client on this machine."""
    host, port = split_address(listener)
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - the reverse of listening there
        host = "127.0.0.1" if host != "::" else "::1"
    return join_address(host, port)


def base_url(rest: str, *, tls: bool) -> str:
    """Return the base URL of a listener at HOST:PORT, for a client on this machine."""
    return f"{'https' if tls else 'http'}://{client_address(rest)}"


async def print_first_key(
    key_maker: KeyMaker,
    config: Config,
    urls: ServedUrls,
    *,
    asked: bool = False,
    state: Path = STATE,
) -> None:
    """Make and print the first key. If there are keys already, print how to make another.

    Unless it is `asked` for, or standard output is a terminal, print nothing. Then, without any
    key, log how to make one.
    """
    if not (asked or sys.stdout.isatty()):
        if not await key_maker.has_key():
            log.warning("first_key.skipped", extra={"remedy": REMEDY})
        return
    key = await key_maker.make_first()
    if key is None:
        option = "" if state == STATE else f" --state {shlex.quote(str(state))}"
        run_as = Path(sys.argv[0])
        program = shlex.quote(str(run_as)) if run_as.name == PROGRAM else PROGRAM
        sys.stdout.write(urls.fill(LATER_START, program=program, state=option))
        sys.stdout.flush()
        return
    models = [name for channel in config.channels for name in channel.models]
    text = urls.fill(FIRST_KEY, key=key, model=models[0] if models else "MODEL")
    sys.stdout.write(text if models else f"{text}\n{NO_MODELS}\n")
    sys.stdout.flush()
