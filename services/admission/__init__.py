"""Admission of calls: who calls, what the key allows, and the hold on the balance.

Modules, in the order in which data flows:

    keyring         authentication of keys, with a cache
    interrupt       interrupt of calls in flight: deadline, operator, revocation of the key
    answer_limit    the most tokens of an answer, by the limit that a request is sent with
    call_plan       scope, limits, prices and headers of a key's calls to a model, compiled
    gate            admission: scope, limits, hold
    prompt_limit    bound of the tokens of a prompt's media, for the hold
    tool_limit      bound of the calls of tools that a provider runs, for the hold
    drain_rules     which answers are read to their end without their caller
    limits          the limits that apply to a key's calls, by the rules of the configuration
    leases          requests, tokens and slots that calls have taken from limits
    limit_headers   the `x-ratelimit-…` headers
    hold_extension  extension of a hold by what the balance still has
    ticket          usage and settlement of an admitted call
"""
