"""The gRPC service: what a call passes through, in the order of the packages.

    completions   border and story: validate, admit, route, relay, settle
    admission     who calls, and may they: keys, limits, the hold
    routing       which channel, and the next one if it fails
    providers     our contract to the provider's dialect and back; the sockets
    metering      what it cost
    storage       what is remembered

Beside that path stand `models` (what may be asked for), `accounts` and `operations` (what
operators ask), `telemetry` (what they see), and `inprocess` (gRPC without a wire).
`server` puts all of it together, `serve` puts it on sockets, `cli` is the command.

Imports go downwards only: `LAYERS` in `tests/test_architecture.py` is the order. The
service knows nothing of HTTP's REST edge, which is `gateway/`; only `serve` and one
command of the shell know both.
"""
