"""What is remembered, and where.

base       what a database promises; a transaction is a generator of statements
schema     the tables, by version
sqlite     the embedded default: one file, one writer, group commit
postgres   the same for a fleet
opening    which of the two
keys       the keys of callers
accounts   who pays, and what was credited
ledger     holds and what became of them
"""
