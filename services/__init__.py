"""The gRPC service: what a call passes through, in the order of the packages.

    completions   border and story: validate, admit, route, relay, settle
    admission     who calls, and may they: keys, limits, the hold
    routing       which channel, and the next one if it fails
    providers     our contract to the provider's dialect and back; the sockets
    metering      what it cost
    storage       what is remembered

Imports go downwards only (`tests/test_architecture.py`): cli, server, the servicers
(completions, models, accounts), admission and routing, metering and providers,
storage, then config, telemetry, clock, capabilities and errors. The service knows
nothing of HTTP's REST edge; that is `gateway/`.
"""
