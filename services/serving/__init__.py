"""Composition: what a process is made of, from the command line to its listeners.

Modules, in the order in which data flows:

    options            options of `pomogator serve`
    plain_text         links that would leave this machine in plain text
    missing_models     a configuration without models
    unpriced_models    models without a price
    serve              one process from start to graceful shutdown
    server             a configuration in, a running service out
    raw_apis           translations of requests that are in the form of another API
    process_parts      clock, telemetry and background tasks that all of a service uses
    stores             database, pepper and counters; the ledger and keys in them
    call_log_parts     store, queue and retention of the call log
    system_reload      reloads by SIGHUP and by a change of the file, in the audit log
    replica_count      number of services that share a database
    reload             the snapshot of a configuration, and its replacement
    config_watch       a file that others replace
    operations         parts of OperationsService
    servicers          the gRPC servicers, for callers and for operators
    service            the running service, before it has a listener
    core_backend       the core of this process behind an edge in it
    edge_workers       edges in processes of their own, on one port
    listeners          metrics, gRPC, operators' REST, REST
    first_key          the key that the first start makes
"""
