"""A server that cannot start prints the reason in one line, and exits."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli import main
from services.cli.output import read_listener
from services.storage import sqlite_file
from tests.services.cli.conftest import Shell

PASSWORD = "canary-password"


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Restores the log's handlers after the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])


@pytest.fixture
def taken() -> Iterator[str]:
    """An address where another socket listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refused(shell: Shell, *arguments: str, **env: str) -> str:
    """Return the last line of a server that does not start. Earlier lines are its log."""
    elsewhere = ("--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "")
    state = {"POMOGATOR_STATE": str(shell.state), "POMOGATOR_CONFIG": str(shell.config)}
    assert main(("serve", *elsewhere, *arguments), {**state, **env}) == 1
    *before, last, end = shell.said().split("\n")
    assert end == ""
    assert all(line.startswith("{") for line in before), before
    return last.removeprefix("pomogator: ")


@pytest.mark.parametrize(
    "option", ["--rest", "--ops-rest", "--metrics", "--grpc", "--console", "--ops"]
)
def test_an_address_that_is_taken(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, taken: str, option: str
) -> None:
    """The error has the address, the system's message, and the option that sets the address."""
    monkeypatch.setenv("POMOGATOR_OPS_TOKEN", "0" * 32)

    said = refused(shell, option, taken)

    assert (
        said
        == f"cannot listen on {taken}: Address already in use; choose another address with {option}"
    )


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.7:80", "Cannot assign requested address"),
        ("nobody.invalid:80", "Name or service not known"),
    ],
)
def test_an_address_of_another_machine(shell: Shell, address: str, reason: str) -> None:
    """The error has the address and the system's message without its number."""
    said = refused(shell, "--rest", address, "--insecure")

    assert said.startswith(f"cannot listen on {address}: ")
    assert reason in said or "resolution" in said  # Without a network names have another.


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("--tls-cert", "{folder}/no.crt", "--tls-key", "{folder}/no.key"), "no.crt: No such file"),
        (("--tls-cert", "{config}", "--tls-key", "{config}"), "are no certificate and its key"),
        (("--tls-cert", "{config}"), "--tls-cert and --tls-key go together"),
        (("--tls-client-ca", "{config}"), "--tls-cert and --tls-key go together"),
        (("--only", "rest", "--target-ca", "{config}"), "holds no certificate in PEM"),
        (("--only", "rest", "--target-ca", "{folder}/no.crt"), "no.crt: No such file"),
        (("--only", "rest", "--target-key", "{config}"), "--target-cert and --target-key go"),
        (("--target", "127.0.0.1:1"), "--target is the service of an edge"),
    ],
)
def test_certificates_that_cannot_be_used(
    shell: Shell, tmp_path: Path, files: tuple[str, ...], reason: str
) -> None:
    """The error has the file or option, and the reason."""
    named = [each.format(folder=tmp_path, config=shell.config) for each in files]

    assert reason in refused(shell, *named)


def test_a_state_that_cannot_be_written(shell: Shell, tmp_path: Path) -> None:
    """The error has the folder."""
    assert refused(shell, "--state", "/proc/nowhere") == "/proc/nowhere: No such file or directory"
    file = tmp_path / "file"
    file.write_text("")
    assert refused(shell, "--state", str(file)).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("variable", "url", "reason"),
    [
        (
            "DATABASE_URL",
            "postgresql://u:{}@127.0.0.1:1/db",
            "database_url: 127.0.0.1:1: Connection",
        ),
        ("DATABASE_URL", "postgresql://u:{}@127.0.0.1:x/db", "database_url: port: must be a whole"),
        ("DATABASE_URL", "mysql://u:{}@127.0.0.1/db", "database_url: must begin with postgres"),
        ("REDIS_URL", "redis://:{}@127.0.0.1:x", "redis_url: must be redis://[USER"),
        ("REDIS_URL", "http://:{}@127.0.0.1", "redis_url: must begin with redis"),
    ],
)
def test_databases_that_cannot_be_opened(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, variable: str, url: str, reason: str
) -> None:
    """The error has the key and the reason, not the password. Redis may start later."""
    monkeypatch.setenv(f"POMOGATOR_{variable}", url.format(PASSWORD))

    said = refused(shell)

    assert f"state.{reason}" in said
    assert PASSWORD not in said


def test_a_state_that_is_in_use(shell: Shell) -> None:
    """The error says what to do."""
    shell.state.mkdir(mode=0o700)
    lock = sqlite_file.lock(shell.state)
    try:
        said = refused(shell)
    finally:
        os.close(lock)

    assert said == (
        f"{shell.state} is in use by another process; stop that one, or choose another directory "
        "with --state"
    )


def test_a_check_says_how_to_get_models(shell: Shell) -> None:
    """An empty configuration is valid, and refuses all calls."""
    shell.config.write_text("")

    assert main(("check", "--config", str(shell.config)), {}) == 0
    assert "no models: give a configuration with [[channels]]" in shell.said()


def test_an_edge_reads_its_tables_of_the_configuration(shell: Shell) -> None:
    """`[bounds]` is checked; a channel without a key is an error of the service alone."""
    key = 'api_key_env = "NO_SUCH_VARIABLE"\n'
    shell.config.write_text(
        f"[bounds]\nconnections_max = 0\n[[channels]]\nname = 'a'\ndialect = 'openai'\n{key}"
    )

    said = refused(shell, "--only", "rest", "--target", "127.0.0.1:1")

    assert said == f"{shell.config}: Expected `int` >= 1 - at `$.bounds.connections_max`"


def test_a_configuration_that_cannot_be_used(shell: Shell, tmp_path: Path) -> None:
    """The error has the file and the key."""
    nowhere = tmp_path / "no.toml"
    assert refused(shell, "--config", str(nowhere)).startswith(f"{nowhere}: cannot be read")
    shell.config.write_text("[bounds]\ncalls_mix = 1")
    assert "bounds.calls_mix: no such key; did you mean 'calls_max'?" in refused(shell)


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:99999", "localhost:x", ":1", "unix:", "dns:///x:1:y"]
)
def test_an_invalid_listener_is_refused(text: str) -> None:
    """A port that is too large would become another one in gRPC."""
    with pytest.raises(Exception, match="expected HOST:PORT"):
        read_listener(text)


def test_listeners_are_kept_as_they_are() -> None:
    """On TCP, IPv6 and a socket."""
    for text in ("127.0.0.1:0", "[::1]:50051", "unix:var/ops.sock"):
        assert read_listener(text) == text
