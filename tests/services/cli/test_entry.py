from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from services.accounts.operator_services import OperatorServices
from services.cli import main
from services.clock import SystemClock
from services.common.key_format import well_formed
from services.rpc.failure_border import FailureBorder
from services.storage.pepper import load_pepper
from services.storage.sqlite import SqliteDatabase
from tests.services.cli.conftest import CONFIG, Shell


@pytest.fixture
async def server(shell: Shell) -> AsyncIterator[OperatorServices]:
    """A server that has the state open, with its operators' listener."""
    clock = SystemClock()
    database = await SqliteDatabase.open(shell.state, clock)
    pepper = await load_pepper(shell.state, {}, database)
    services = OperatorServices(database=database, pepper=pepper, clock=clock)
    server = grpc.aio.server(interceptors=[FailureBorder()])
    services.register(server)
    server.add_insecure_port(f"unix:{shell.state / 'ops.sock'}")
    await server.start()
    yield services
    await server.stop(None)
    await database.close()


def test_keys_without_a_server(shell: Shell) -> None:
    """Keys are created, listed, rotated and revoked without a running server."""
    lines = shell.run("keys", "create", "--account", "acme", "--name", "batch").splitlines()
    key_id = lines[0].split()[0]

    assert well_formed(lines[-1])
    listed = shell.run("keys", "list").splitlines()
    assert len(listed) == 2
    assert listed[1].split()[:3] == [key_id, "acme", f"{lines[-1][:14]}…"]
    assert "valid" in listed[1]
    assert lines[-1] not in listed[1]
    rotated = shell.run("keys", "rotate", key_id, "--overlap", "7d").splitlines()
    assert key_id in rotated[0]
    assert well_formed(rotated[-1])
    assert f"{rotated[-1][:14]}…" in shell.run("keys", "list")
    assert key_id in shell.run("keys", "revoke", key_id)
    assert "revoked 20" in shell.run("keys", "list")


async def test_keys_beside_a_server(shell: Shell, server: OperatorServices) -> None:
    """The same commands call the server that has the state open."""
    lines = (await shell.run_beside_server("keys", "create", "--account", "acme")).splitlines()
    key_id = lines[0].split()[0]

    assert well_formed(lines[-1])
    assert key_id in await shell.run_beside_server("keys", "list")
    assert key_id in await shell.run_beside_server("keys", "revoke", key_id)
    error = await shell.run_beside_server("keys", "revoke", "key-0", code=1)
    assert error == "pomogator: There is no key with this ID.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("keys", "create", "--account", "a b"),
            "account must be 1 to 64 letters, digits or `_-.@`",
        ),
        (("keys", "revoke", "key-0"), "There is no key with this ID."),
        (("keys", "list", "--state", "/proc/nowhere"), "/proc/nowhere: No such file or directory"),
    ],
)
def test_failures_are_one_line(shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    """A failure is one line on stderr, without a traceback, and exit code 1."""
    assert shell.run(*arguments, code=1) == f"pomogator: {message}\n"


def test_bad_configuration_is_refused_everywhere(shell: Shell) -> None:
    """Every command that reads the file names it."""
    shell.config.write_text("channels = 7")

    for arguments in (("check",), ("models", "list"), ("keys", "list")):
        assert str(shell.config) in shell.run(*arguments, code=1)


def test_a_new_state_is_not_made_in_silence(shell: Shell) -> None:
    """Where no server runs, `keys create` says where it made one. The last line is the key."""
    said = shell.run("keys", "create", "--account", "a")
    assert said.splitlines()[-1].startswith("sk-pg-")
    (remark,) = shell.remarks
    assert f"no server runs, so a new state was made in {shell.state}; --state" in remark

    shell.run("keys", "list")
    assert shell.remarks == []


def test_operators_need_no_key_of_a_provider(shell: Shell) -> None:
    """`keys list` and its like read only where the state is; `check` needs the keys."""
    shell.config.write_text(CONFIG.replace("name = ", 'api_key_env = "UNSET_KEY"\nname = '))
    assert "the variable UNSET_KEY is not set" in shell.run("check", code=1)
    for words in (
        *("keys create --account a", "keys list", "accounts show a", "usage --account a"),
        *("ledger verify", "models list", "explain --model a/one"),
    ):
        shell.run(*words.split())


def test_check_prints_counts(shell: Shell) -> None:
    """The numbers of channels and models."""
    assert shell.run("check").startswith("OK: 1 channels, ")


def test_models_are_listed_by_name(shell: Shell) -> None:
    """`models list` prints the public names, one a line, sorted."""
    names = shell.run("models", "list").splitlines()

    assert names[:2] == ["a/one", "b/two"]


def test_a_configuration_without_models_is_named(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty list says why, beside the output."""
    shell.config.write_text("")

    assert main(("models", "list"), {"POMOGATOR_CONFIG": str(shell.config)}) == 0

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("pomogator: no models: ")


def test_models_without_a_price_are_named(shell: Shell) -> None:
    """`check`, `models list` and `explain` show them, and what happens to them."""
    said = "without a price, refused to accounts that pay: a/one, b/two\n"
    for command in (("check",), ("models", "list")):
        assert shell.run(*command).endswith(said)
    assert "no price: refused to accounts that pay" in shell.run("explain", "--model", "a/one")

    prices = [f'[[models]]\nname = "{name}"\nrequest_usd = 0' for name in ("a/one", "b/two")]
    shell.config.write_text("\n".join([CONFIG, *prices]))
    for words in ("check", "models list", "explain --model a/one"):
        assert "no price" not in shell.run(*words.split())
        assert "without a price" not in shell.run(*words.split())

    shell.config.write_text(CONFIG + "[billing]\nunpriced = 'free'\n")
    assert "without a price, free of charge: a/one, b/two" in shell.run("check")


@pytest.mark.parametrize(
    "arguments",
    [(), ("keys",), ("nonsense",), ("keys", "create"), ("serve", "--rest", "localhost")],
)
def test_misuse_is_exit_code_2(
    shell: Shell, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """The error is printed after the usage."""
    with pytest.raises(SystemExit) as left:
        main(arguments, {})

    assert left.value.code == 2
    assert "usage: pomogator" in capsys.readouterr().err
