from __future__ import annotations

import pytest

from gateway.__main__ import main


@pytest.mark.parametrize("address", ["localhost", ":8080", "localhost:http", "h:65536"])
def test_where_to_listen_is_looked_at_first(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no HOST:PORT is explained, with the usage."""
    with pytest.raises(SystemExit) as left:
        main(["--target", "127.0.0.1:1", "--rest", address])
    assert left.value.code == 2
    assert "expected HOST:PORT" in capsys.readouterr().err
