"""Metering: tokens, prices, and the ledger of holds and charges.

Modules, in the order in which data flows:

    json_budget      bound of the JSON of a request that is looked into
    prompt_contents  texts of a prompt, and tokens of its other contents
    tokens           estimates and counts of tokens
    provider_tools   prices of tools that providers run themselves
    prices           prices of models, and the cost of a call
    price_list       the price of each public model
    holds            the hold of an admitted request
    ledger           holds taken at admission, checkpointed, then settled or voided
    books            admission of holds by balance and budget: what both kinds do
    memory_books     balances in memory, for the only process of a database
    shared_books     balances in a database that several processes share
    cache_writes     cache writes that a request asks for
    usage_parts      parts of a usage within its totals
    usage            tokens to bill: the provider's usage, or our own count
    outbox           holds and their ends on their way to the database
    checkpoints      usage of calls in flight, which is charged if their process dies
    current_reads    reads of the books that see all that calls have done until now
    hold_retention   deletion of ended holds that are over their retention
    recovery         recovery of holds whose process died
"""
