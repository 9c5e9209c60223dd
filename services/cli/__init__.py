"""The command `pomogator`.

    entry      runs a command and turns failures into one line
    arguments  what may be said
    serving    serve, check, models
    keys       keys create, list, revoke
    accounts   accounts create, credit, show, list, update; usage; ledger verify
    operations explain, reload
    operators  the way to the service, whether it runs or not
    output     money, times and tables as people read and write them

Exit codes: 0 done, 1 failed, 2 misused.
"""

import gc
import os

# gRPC's core would write lines that are no JSON, one for every handshake that fails. It looks
# for this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# What is imported stays. To look for garbage among it, meanwhile and ever after, was a quarter of
# the start; there is 0.6 MB of it.
gc.disable()

from services.cli.entry import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]
