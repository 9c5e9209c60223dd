"""The gRPC service, and the command `pomogator`.

Modules, in the order in which data flows:

    __main__          `python -m services` is the command `pomogator`
    cli               the commands
    serving           composition: a configuration in, a running process out
    rpc               the border to gRPC: listeners, interceptors, health
    overload          load shedding before a call is looked at
    call_log          a row for each call, its lists, sums and exports
    embeddings        vectors of texts: the same steps, part by part
    completions       chat completions: validate, admit, attempt, relay, settle
    models            the models that a key may use
    accounts          accounts, keys, the ledger and usage, for operators
    operations        channels' health, explanation of a request, reload
    admission         keys, limits, holds
    routing           channels of a model, their health, failover
    providers         dialects of providers; connections to them
    local             models that this process runs
    metering          ledger, prices, tokens
    storage           databases, and counters of limits
    config            the configuration file
    telemetry         records of calls, metrics and traces
    capabilities      what models can do
    context_windows   context windows of models
    embedding_limits  limits of models that compute embeddings
    errors            failures of calls
    reason_table      reasons of failures
    clock             time and randomness
    domain            the language of edge and core
    common            leaf modules that the edge imports, too

Imports go downwards only, in the order of `LAYERS` in `tests/test_architecture.py`. The edge is
`gateway`; only `serving` and `cli` import both.
"""
