"""Routing: which channel answers a call, and which one next if that fails.

Modules, in the order in which data flows:
    catalog          public models, and the channels and keys that serve each
    choice           the order in which targets are tried: priority, weight, health
    failover         attempts at targets until one begins to answer
    budget           the retry budget, a share of the calls
    health           circuit breakers, error rates and latencies of channels
    decay            means in which older observations count less
    routing_metrics  the metrics of breakers and retries
"""
