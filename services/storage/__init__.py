"""What is remembered, and where. What may be done with it is decided elsewhere.

    base       what a database promises; a transaction is a generator of statements
    schema     the tables, by version
    sqlite     the embedded default: one file, one writer, group commit
    postgres   the same for a fleet
    opening    which of the two
    settings   facts about the state itself
    pepper     the secret that makes stolen digests useless
    keys       the keys of callers
    accounts   who pays, and what was paid in
    ledger     holds and what became of them
    audit      whether the books are right
    reports    what was used and paid

`counters` count what limits allow, in this process or in Redis.
"""
