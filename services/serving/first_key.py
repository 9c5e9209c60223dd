"""The key that the first start makes, and how to use it.

The key is unlimited, so it is made only where its output does not end up in a log: on a terminal,
or if a flag asks for it.
"""

from __future__ import annotations

import logging
import sys

from services.accounts.key_maker import KeyMaker
from services.config import Config

log = logging.getLogger(__name__)

FIRST_KEY = """
This is the first start: here is a key. It is shown only now, and it is unlimited: its calls need
no balance. `pomogator keys create` makes others.

  {key}

Send a request:

  curl http://{rest}/v1/chat/completions \\
    -H "Content-Type: application/json" -H "Authorization: Bearer {key}" \\
    -d '{{"model": "{model}", "stream": true,
         "messages": [{{"role": "user", "content": "Hello!"}}]}}'
"""

NO_MODELS = """
No model is configured yet: give a configuration with --config, or set a provider's key, such as
ANTHROPIC_API_KEY.
"""


REMEDY = (
    "pomogator accounts create NAME --credit USD; pomogator keys create --account NAME; or start "
    "with --print-first-key"
)


async def print_first_key(
    key_maker: KeyMaker, config: Config, rest: str, *, asked: bool = False
) -> None:
    """Make and print a key, if there is none yet. `rest` is the address of the REST API.

    Unless it is `asked` for, or standard output is a terminal, log how to make one instead.
    """
    if not (asked or sys.stdout.isatty()):
        if not await key_maker.has_key():
            log.warning("first_key.skipped", extra={"remedy": REMEDY})
        return
    key = await key_maker.make_first()
    if key is None:
        return
    models = [name for channel in config.channels for name in channel.models]
    text = FIRST_KEY.format(key=key, rest=rest, model=models[0] if models else "MODEL")
    sys.stdout.write(text if models else text + NO_MODELS)
    sys.stdout.flush()
