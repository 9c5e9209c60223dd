from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from gateway.__main__ import main


@pytest.mark.parametrize("address", ["localhost", ":8080", "localhost:http", "h:65536"])
def test_an_invalid_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is printed after the usage."""
    with pytest.raises(SystemExit) as left:
        main(["--target", "127.0.0.1:1", "--rest", address])
    assert left.value.code == 2
    assert "expected HOST:PORT" in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the last line of an edge that does not start."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    elsewhere = ("--target", "127.0.0.1:1", "--rest", "127.0.0.1:0")
    try:
        with pytest.raises(SystemExit) as left:
            main([*elsewhere, *map(str, arguments)])
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
    assert left.value.code in {1, 2}
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("python -m gateway: ")
    return last


def test_an_address_that_is_taken_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The error has the address and the system's message."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused(capsys, "--rest", address)

    assert said.endswith(
        f"cannot listen on {address}: Address already in use; choose another address with --rest"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--rest", "0.0.0.0:0"), "--rest 0.0.0.0:0 would be plain text"),
        (("--metrics", "0.0.0.0:0"), "--metrics 0.0.0.0:0 would be plain text"),
        (("--target", "dns:///service:1"), "--target dns:///service:1 would be plain text"),
        (("--target", "dns:///service:1", "--insecure", "rest"), "or --insecure target"),
        (("--insecure", "everything"), "'everything' is not one of rest, target"),
        (("--tls-cert", "{file}"), "--tls-cert and --tls-key go together"),
        (("--target-cert", "{file}", "--target-key", "{file}"), "--target-cert needs --target-ca"),
        (("--tls-cert", "{file}", "--tls-key", "{file}"), "are no certificate and its key in PEM"),
        (("--tls-cert", "/no.crt", "--tls-key", "/no.key"), "/no.crt: No such file or directory"),
        (("--target-ca", "{file}"), "holds no certificate in PEM"),
        (("--target-ca", "/no.crt"), "/no.crt: No such file or directory"),
    ],
)
def test_options_that_cannot_be_used_are_reported_in_a_line(
    arguments: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain text needs consent, and the error has the option or file."""
    file = tmp_path / "file.pem"
    file.write_text("nothing")

    assert reason in refused(capsys, *(each.format(file=file) for each in arguments))
