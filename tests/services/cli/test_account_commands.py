from __future__ import annotations

import sqlite3

from services.storage.sqlite_file import FILE
from tests.services.cli.conftest import Shell


def test_an_account_is_created_credited_and_shown(shell: Shell) -> None:
    """A payment is credited once for each request ID."""
    opened = shell.run("accounts", "create", "acme", "--credit", "10.50")
    assert "balance: 10.50 USD\n" in opened

    for _ in range(2):
        paid = shell.run("accounts", "credit", "acme", "0.000000001", "--request-id", "inv-1")
    assert "balance: 10.500000001 USD\n" in paid
    shell.run("accounts", "credit", "acme", "-0.5", "--request-id", "refund-1")

    shown = shell.run("accounts", "show", "acme")
    assert "account: acme\nbalance: 10.000000001 USD\nheld:    0.00 USD\n" in shown


def test_duplicates_and_overdrafts_are_refused(shell: Shell) -> None:
    """A second account of a name, a second payment of an ID, a withdrawal above the balance."""
    shell.run("accounts", "create", "acme", "--credit", "1")
    shell.run("accounts", "credit", "acme", "1", "--request-id", "inv-1")

    for arguments, message in (
        (("create", "acme"), "An account with this name exists already."),
        (("show", "nobody"), "There is no account with this name."),
        (("credit", "nobody", "1", "--request-id", "i"), "There is no account with this name."),
        (("credit", "acme", "2", "--request-id", "inv-1"), "The request ID was used for another"),
        (("credit", "acme", "-3", "--request-id", "out"), "Insufficient balance"),
        (("credit", "acme", "0", "--request-id", "i"), "amount_nano_usd must not be 0"),
    ):
        assert message in shell.run("accounts", *arguments, code=1)


def test_a_key_for_an_account_without_money_says_so(shell: Shell) -> None:
    """The missing account is made with a balance of 0. The last line is the key alone."""
    for options, said in (
        ((), True),
        (("--unlimited",), False),
        (("--credit", "1"), False),
    ):
        name = "a" + "".join(options).strip("-")
        if options:
            shell.run("accounts", "create", name, *options)
        *lines, key = shell.run("keys", "create", "--account", name).splitlines()
        assert key.startswith("sk-pg-")
        assert ("has no money (balance: 0.00 USD)" in lines[0]) is said


def test_a_key_is_created_with_its_scope(shell: Shell) -> None:
    """Models, limits, budget and expiry are options of `keys create`."""
    shell.run(
        "keys", "create", "--account", "acme", "--models", "a/one, b/two", "--rpm", "60",
        "--tpm", "1000", "--concurrency", "2", "--monthly-usd", "5", "--strict",
        "--expires", "2030-01-01",
    )  # fmt: skip

    assert "until 2030-01-01T00:00:00Z" in shell.run("keys", "list")
    error = shell.run("keys", "create", "--account", "acme", "--rpm", "0", code=1)
    assert "scope.requests_per_minute must be in [1, " in error


def test_accounts_and_the_keys_of_one_are_listed(shell: Shell) -> None:
    """Accounts are listed with balance and terms, keys also for one account alone."""
    shell.run("accounts", "create", "acme", "--credit", "1.5")
    shell.run("accounts", "create", "free", "--unlimited")
    ids = [shell.run("keys", "create", "--account", name).split()[0] for name in ("acme", "free")]

    head, *rows = shell.run("accounts", "list").splitlines()
    assert head.split() == ["ACCOUNT", "USD", "HELD", "UNLIMITED", "MARKUP", "OPENED"]
    assert sorted(row.split()[:4] for row in rows) == [
        ["acme", "1.50", "0.00", "no"],
        ["free", "0.00", "0.00", "yes"],
    ]
    _, *listed = shell.run("keys", "list", "--account", "free").splitlines()
    assert [row.split()[0] for row in listed] == ids[1:]
    assert len(shell.run("keys", "list").splitlines()) == 3
    assert "no account with this name" in shell.run("keys", "list", "--account", "fre", code=1)


def test_a_key_is_changed_after_it_was_made(shell: Shell) -> None:
    """Each option changes one term; `none` and `all` remove limits; others stay."""
    made = shell.run("keys", "create", "--account", "acme", "--rpm", "60", "--models", "a/one")
    key_id = made.split()[0]

    changed = shell.run(
        "keys", "update", key_id, "--name", "batch", "--rpm", "120", "--monthly-usd", "5",
        "--expires", "2100-01-01", "--strict", "--text-content", "--thinking-names-hidden",
        "--administers-account",
    )  # fmt: skip
    assert changed.splitlines()[2:] == [
        "name:        batch", "models:      a/one", "expires:     2100-01-01T00:00:00Z",
        "strict:      yes", "content:     text", "-thinking:   not listed",
        "administers: its account", "rpm:         120",
        "tpm:         none", "concurrency: none", "monthly USD: 5.00",
    ]  # fmt: skip

    cleared = shell.run(
        "keys", "update", key_id, "--rpm", "none", "--models", "all", "--monthly-usd", "none",
        "--expires", "none", "--no-strict", "--no-text-content", "--no-thinking-names-hidden",
        "--no-administers-account",
    )  # fmt: skip
    assert cleared.splitlines()[2:] == [
        "name:        batch", "models:      all", "expires:     none", "strict:      no",
        "content:     as configured", "-thinking:   as configured", "administers: no",
        "rpm:         none", "tpm:         none", "concurrency: none", "monthly USD: none",
    ]  # fmt: skip

    assert "nothing to change" in shell.run("keys", "update", key_id, code=1)
    assert "no key" in shell.run("keys", "update", "key-0", "--rpm", "1", code=1)


def test_a_repeated_request_for_a_key_names_the_key(shell: Shell) -> None:
    """It fails, since the secret was shown before, and says how to get a new one."""
    arguments = ("keys", "create", "--account", "acme", "--request-id", "r-1")
    key_id = shell.run(*arguments).split()[0]

    error = shell.run(*arguments, code=1)

    assert f"has created {key_id} before" in error
    assert f"pomogator keys rotate {key_id}" in error
    assert len(shell.run("keys", "list").splitlines()) == 2


def test_usage_without_calls_and_of_an_unknown_account(shell: Shell) -> None:
    """An account without calls has a total of 0; an unknown one is an error."""
    shell.run("accounts", "create", "acme")

    lines = shell.run("usage", "--account", "acme", "--since", "2026-01-01T00:00Z").splitlines()
    assert lines[-1].split() == ["TOTAL", "0", "0.00"]
    assert "no account" in shell.run("usage", "--account", "nobody", code=1)


def test_verify_passes_or_names_its_findings(shell: Shell) -> None:
    """The audit prints counts, and fails with the account whose rows were changed by hand."""
    shell.run("accounts", "create", "acme", "--credit", "10")
    assert shell.run("ledger", "verify").splitlines() == [
        "accounts: 1", "calls: 0", "held: 0", "holds_without_call: 0", "recovered: 0",
        "settled: 0", "transfers: 1", "voided: 0", "OK: no findings",
    ]  # fmt: skip

    raw = sqlite3.connect(shell.state / FILE)
    raw.execute("UPDATE accounts SET posted = posted + 1")
    raw.commit()
    raw.close()

    assert "1 findings" in shell.run("ledger", "verify", code=1)
