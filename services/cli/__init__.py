"""The command `pomogator`. Exit codes: 0 done, 1 failed, 2 wrong usage.

Modules, in the order in which data flows:

    entry               run a command, and print a failure as one line
    arguments           the command line
    serve_arguments     flags of `serve` and `demo`
    demo_command        demo
    serve_commands      serve, check, models list
    key_arguments       options of `keys create` and `keys update`
    key_commands        keys create, list, update, rotate, revoke
    account_commands    accounts create, credit, list, show; usage; ledger verify
    operation_arguments  options of commands about channels, calls in flight, the audit log
    channel_commands    channels list, disable, enable, test
    live_commands       calls live, abort
    audit_commands      audit list
    operation_commands  explain, reload
    operator_client     connection to the operators' services
    output              money, times and tables as people read and write them
"""

import gc
import os

# gRPC's core logs lines that are not JSON, such as one for each failed handshake. It reads this
# variable when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Imported objects live as long as the process. Collecting garbage among them took a quarter of the
# start and found 0.6 MB.
gc.disable()

from services.cli.entry import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]
