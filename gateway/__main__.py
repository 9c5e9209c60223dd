"""`python -m gateway`: an edge in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

import uvloop

from gateway.arguments import edge_options, parser
from gateway.edge import run_edge
from services.common.config_tables import ConfigError
from services.common.process_settings import open_standard_descriptors


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A failure to start is one line on stderr."""
    open_standard_descriptors()
    root = parser(os.environ)
    options = root.parse_args(arguments)
    try:
        uvloop.run(run_edge(edge_options(options, options.target)))
    except ConfigError as error:
        root.exit(1, f"{root.prog}: {error}\n")
    except OSError as error:
        # Errors of this package have a message, those of the system a file name.
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        root.exit(1, f"{root.prog}: {reason}\n")


if __name__ == "__main__":
    main()
