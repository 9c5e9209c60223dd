"""Admission and load shedding at the edge.

Modules, in the order in which data flows:

    thresholds          every number of this package, in one table
    connection_limit    the limit of client connections
    concurrency_limit   calls in flight to a service apart, and their limit, learned from refusals
    memory_monitor      memory usage, and the stages of load shedding
    body_budget         the memory that requests with large bodies may take
    cgroup              memory usage of the container, from the kernel
    refusals            503 with a random Retry-After
    overload_metrics    metrics of refused calls and connections
"""
