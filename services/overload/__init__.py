"""Load shedding of the service: refusals that cost nothing, before a process is overloaded.

Modules, in the order in which data flows:
    thresholds       every number that decides when calls are refused
    memory_pressure  the memory of the process, as the edge's monitor measures it
    lateness         how long something takes, and whether it has been late without a break
    load_shedder     how many calls may be in flight; OVERLOADED for the others
"""
