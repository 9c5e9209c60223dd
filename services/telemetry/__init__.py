"""Telemetry of the service: the call log, metrics and traces, and supervision of background tasks.

Modules, in the order in which data flows:

    supervisor    background tasks that are restarted when they fail
    call_tracing  opening of call traces, without OpenTelemetry unless there is a tracer
    call_facts    facts about a completion for its row in the call log
    calls         the record of a completion, and its line in the log
    call_spans    OpenTelemetry spans of calls and attempts
    ended_calls   calls that have ended, on their way to observers
    call_metrics  metrics of completions
"""
