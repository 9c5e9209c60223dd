"""Load shedding of the service: excess calls are refused before they cost anything.

Modules, in the order in which data flows:
    thresholds    the numbers that decide when calls are refused
    lateness      detection of lateness that lasts without a break
    load_shedder  the limit on calls in flight; OVERLOADED for the others
"""
