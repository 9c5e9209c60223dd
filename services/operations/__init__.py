"""OperationsService: explanation of calls, channels, limits, load, configuration.

Modules, in the order in which data flows:

    servicer   OperationsService
    explainer  dry run of a completion
    embedding_explainer  dry run of a call for embeddings
    model_kind  completions or embeddings
    candidates  targets with their state, prices and requests
    channels   status of channels
    operator_acts  entries of the audit log
    channel_control  switches of channels
    probe_requests  requests of channel tests
    channel_tester  test of a channel
    live_calls  calls in flight
    limit_report  limits with their current use
    load_report  load of the process
    configuration_view  configuration without secrets
"""
