"""Admission of calls: who calls, what the key allows, and the hold on the balance.

Modules, in the order in which data flows:
    keyring     authentication of keys, with a cache
    revocation  the end of calls in flight when their key is revoked
    gate        admission: scope, limits, hold
    limits      limits on requests, tokens and concurrent calls, and their leases
    ticket      usage and settlement of an admitted call
"""
