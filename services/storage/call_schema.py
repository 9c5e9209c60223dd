"""Tables of the call log, by schema version. They are apart from the books, and may be lost.

A released version is never edited. Times are milliseconds since 1970, money is whole nano-USD.

    calls         one row for each call that has ended. In PostgreSQL a partition for each day
                  (UTC), in SQLite a file for each month (`services.storage.sqlite_calls`)
    call_sums     sums of calls by hours and by days, with histograms of durations
    call_labels   sums of calls by end users and tags
    call_writers  the last batch that each process has written, so that none is written twice
"""

from __future__ import annotations

from services.storage.schema import Migration, Schema

_CALLS = """
CREATE TABLE calls (
    at_ms BIGINT NOT NULL,
    id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    completion_id TEXT NOT NULL,
    account TEXT NOT NULL,
    key_id TEXT NOT NULL,
    surface TEXT NOT NULL,
    streamed BIGINT NOT NULL,
    model TEXT NOT NULL,
    served_model TEXT NOT NULL,
    channel TEXT NOT NULL,
    attempts TEXT NOT NULL,
    attempt_count BIGINT NOT NULL,
    call_end TEXT NOT NULL,
    reason TEXT NOT NULL,
    http_status BIGINT NOT NULL,
    ttft_ms BIGINT,
    total_ms BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    thinking_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    source TEXT NOT NULL,
    flags TEXT NOT NULL,
    charge BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    hold BIGINT NOT NULL,
    hold_id TEXT NOT NULL,
    end_user TEXT NOT NULL,
    session TEXT NOT NULL,
    tags TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    notes TEXT NOT NULL,
    note_count BIGINT NOT NULL,
    PRIMARY KEY (at_ms, id)
)"""

_INDEXES = """
CREATE INDEX calls_by_account ON calls (account, at_ms, id);

CREATE INDEX calls_by_request ON calls (request_id);

CREATE INDEX calls_by_answer ON calls (completion_id) WHERE completion_id <> '';

CREATE INDEX calls_by_session ON calls (session, at_ms) WHERE session <> '';

CREATE INDEX calls_by_end_user ON calls (end_user, at_ms) WHERE end_user <> '';

"""

_SUMS = ",\n    ".join(
    f"{name} BIGINT NOT NULL"
    for name in (
        *("calls", "failures", "prompt_tokens", "completion_tokens", "thinking_tokens"),
        *("cache_read_tokens", "cache_write_tokens", "charge", "cost"),
    )
)

_BUCKETS = ", ".join(
    f"{name}_{number} BIGINT NOT NULL" for name in ("ttft", "total") for number in range(32)
)

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        both=f"""
CREATE TABLE call_sums (
    span_ms BIGINT NOT NULL,
    start_ms BIGINT NOT NULL,
    account TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    channel TEXT NOT NULL,
    call_end TEXT NOT NULL,
    {_SUMS},
    {_BUCKETS},
    PRIMARY KEY (span_ms, start_ms, account, key_id, model, channel, call_end)
) WITHOUT ROWID;

CREATE TABLE call_writers (
    writer TEXT PRIMARY KEY,
    batch BIGINT NOT NULL,
    at_ms BIGINT NOT NULL
);

""",
        sqlite=f"{_CALLS} WITHOUT ROWID;\n\n{_INDEXES}",
        postgres=f"""{_CALLS} PARTITION BY RANGE (at_ms);

{_INDEXES}CREATE INDEX calls_by_key ON calls (key_id, at_ms, id);

CREATE INDEX calls_by_model ON calls (model, at_ms, id);

CREATE INDEX calls_by_channel ON calls (channel, at_ms, id);

CREATE INDEX calls_by_end ON calls (call_end, at_ms, id);

CREATE INDEX calls_by_charge ON calls (charge, account);

""",
    ),
    Migration(
        both=f"""
CREATE TABLE call_labels (
    span_ms BIGINT NOT NULL,
    account TEXT NOT NULL,
    start_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    {_SUMS},
    PRIMARY KEY (span_ms, account, start_ms, kind, name, value)
) WITHOUT ROWID;

""",
        # With the charge, calls below the least charge are passed over without their rows.
        postgres="""
DROP INDEX calls_by_account;

CREATE INDEX calls_by_account ON calls (account, at_ms, id, charge);

DROP INDEX calls_by_key;

CREATE INDEX calls_by_key ON calls (key_id, at_ms, id, charge);

""",
    ),
)

CALL_LOG = Schema(MIGRATIONS, "call_log_version", partitioned="calls")
