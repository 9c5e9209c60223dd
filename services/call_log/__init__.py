"""Call log: one row for each call of an accepted key, written after its end.

    record of a call ──► CallQueue ──► CallStore (rows, and sums by hour and day)
                                           └──► CallLogReader ──► CallServicer

No call waits for it. The queue is bounded: where the store is slow, full or gone, rows are dropped
and counted, without an effect on calls, the ledger or its outbox. A batch is written after the ends
of its calls' holds, so each row with a charge has its hold in the ledger. A killed process loses
the rows of its last second.

Modules, in the order in which data flows:

    call_queue     the rows of records, on their way to the store
    retention      removal of what is older than the retention
    call_reader    lists and sums over the segments of a store
    call_scope     the rows that a caller may see
    call_filters   selections of calls, by the fields of requests
    sums_request   queries of sums, by the fields of requests
    call_messages  rows and sums as messages
    export_text    rows as CSV and JSON lines
    call_servicer  the service of the call log
    call_audit     comparison of the rows with the ledger
    closed_log     the log of a state that no server has open
"""
