"""Routing: which channel answers a call, and which one next if that fails.

Modules, in the order in which data flows:

    catalog           public models, and the channels and keys that serve each
    dialect_choice    the dialect of each request, where a channel has two
    affinity          sessions, each with a target whose prompt cache it fills
    choice            the order in which targets are tried: priority, weight, health
    request_form      a request for each of its targets, and an answer that has begun
    attempts          the attempts of a call: targets in turn until one begins to answer
    completion_form   a completion in the form of each target, and the decoder of its answer
    raw_form          a request that passes as it is to targets that take it
    call_failures     the failures of these attempts, and the one that the caller gets
    budget            the retry budget, a share of the calls
    health            circuit breakers, error rates and latencies of channels
    channel_switches  channels that operators have disabled
    routing_metrics   the metrics of breakers and retries
"""
