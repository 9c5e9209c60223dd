"""Databases, counter stores and the transactions that run on them.

Modules, in the order in which data flows:

    opening          registry of backends; opens the configured database and counters
    base             what every database promises; transactions as generators of statements
    schema           tables, by schema version
    sqlite           embedded database: one file, one writer, group commit
    sqlite_file      lock, integrity check and migration of the SQLite file
    state_directory  checks of the state directory: who owns it and can write to it
    sqlite_worker    thread that owns a SQLite connection and commits in batches
    postgres         PostgreSQL, which several services share
    postgres_url     URL of a PostgreSQL database: hosts and parameters
    postgres_parameters  libpq's parameters: allowed values, files, those without an effect
    postgres_connector  connections to the right host, and the kinds of their errors
    postgres_pool    bounded pool of connections
    postgres_schema  migration and privileges
    postgres_notices    notices of other processes, by LISTEN or by polling
    postgres_check   check of a PostgreSQL URL that changes nothing
    delegating       database that passes every call on: the base of databases that add something
    pepper           secret of the keyed digests of API keys
    secret_file         secrets that the first start makes in the state directory
    keys             statements for API keys
    channel_switches  statements for channels that operators have disabled
    audit_entries    statements for the audit log
    models           statements for the models that were offered
    accounts         statements for accounts, deposits and withdrawals
    ledger           statements that take holds
    hold_ends        statements that charge and release them
    late_charges     statements for charges of calls whose holds were recovered meanwhile
    admitted_holds   statements for holds that memory has admitted
    balance_changes  changes of balances that calls have not caused, as notices
    sum_table        tables of sums, to whose rows figures are added
    hold_sums        statements for holds over their retention, and their sums
    hold_journal     holds that are not in the SQLite file yet
    leases           statements for leases of processes
    idempotency      statements for idempotency keys
    audit            consistency checks of the ledger
    reports          statements for usage and transfers
    exact_sums       sums of integers of any size, in two parts
    account_sums     statements for sums over the history of a key or an account
    call_schema      tables of the call log
    call_rows        statements for rows of the call log
    call_sums        statements for sums of calls by hours and days
    call_labels      statements for sums of calls by end users and tags
    call_charges     statements that compare the call log with holds
    call_store       interface of stores of the call log
    sqlite_calls     the call log in SQLite, a file for each month
    postgres_calls   the call log in PostgreSQL, a partition for each day
    counters         rate and concurrency limits in this process
    redis            rate and concurrency limits in Redis or Valkey
    reasoning        sealed reasoning of the latest turns in this process
    redis_reasoning  sealed reasoning in Redis or Valkey
    redis_client     client of a script in Redis: one connection, batched calls
    redis_connector  URL of a Redis server, its connections, and the reasons of their failures
    redis_check      check of a Redis URL
    store_check      check of all stores of a configuration
"""
