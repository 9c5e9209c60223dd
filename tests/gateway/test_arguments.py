from __future__ import annotations

from pathlib import Path

import pytest

from gateway.arguments import LINKS, edge_options, link_names, optional_address, parser
from gateway.config import EdgeTables, load_tables
from services.cli.arguments import parser as whole_parser
from services.common.config_tables import ConfigError
from services.serving import options


def test_links_are_named() -> None:
    """Only links of this program may be plain text."""
    for links in (LINKS, options.LINKS):
        assert link_names("rest,metrics", links) == {"rest", "metrics"}
        assert link_names(",".join(links), links) == set(links)
        with pytest.raises(Exception, match="'rests' is not one of rest, "):
            link_names("rests", links)


@pytest.mark.parametrize("text", ["", "127.0.0.1:0", "[::1]:8080", "localhost:65535"])
def test_addresses_are_kept_as_they_are(text: str) -> None:
    """An empty one turns a listener off."""
    assert optional_address(text) == text


@pytest.mark.parametrize(
    "env",
    [
        {},
        {
            "POMOGATOR_REST": "127.0.0.1:1",
            "POMOGATOR_TARGET": "unix:s",
            "POMOGATOR_METRICS": "",
            "POMOGATOR_SHUTDOWN_DELAY": "7",
            "POMOGATOR_DRAIN_TIMEOUT": "8",
            "POMOGATOR_TARGET_CA": "ca.crt",
            "POMOGATOR_INSECURE": "rest,metrics",
            "POMOGATOR_CONFIG": "p.toml",
        },
    ],
)
def test_both_commands_run_the_same_edge(env: dict[str, str]) -> None:
    """`python -m gateway` and `pomogator serve --only rest` have the same flags and defaults."""
    alone = parser(env).parse_args([])
    only = whole_parser(env).parse_args(["serve", "--only", "rest"])

    assert edge_options(alone, alone.target) == edge_options(only, only.target or only.grpc)


def test_an_edge_reads_its_own_tables(tmp_path: Path) -> None:
    """Bounds, the edge's own, and traces; without a file, the defaults."""
    path = tmp_path / "pomogator.toml"
    path.write_text("""
        unknown = 1
        [bounds]
        body_bytes_max = 2048
        [edge]
        idle_timeout_s = 620
        trusted_proxies = ["10.0.0.0/8", "fd00::1"]
        cors_origins = ["https://app.example", "http://localhost:3000", "*"]
        [traces]
        endpoint = "http://127.0.0.1:4317"
    """)

    tables = load_tables(path)

    assert tables.bounds.body_bytes_max == 2048
    assert tables.edge.idle_timeout_s == 620
    assert tables.traces.endpoint == "http://127.0.0.1:4317"
    assert load_tables(None) == EdgeTables()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[bounds]\nbody_bytes = 1", "unknown field `body_bytes`"),
        ("[bounds", "Expected ']'"),
        ("[edge]\nidle_timeout_s = 0", "`\\$.edge.idle_timeout_s`"),
        (
            '[edge]\ntrusted_proxies = ["10.0.0.1/8"]',
            "trusted_proxies: 10.0.0.1/8 has host bits set",
        ),
        ('[edge]\ntrusted_proxies = ["proxy"]', "trusted_proxies: 'proxy' does not appear to be"),
        ('[edge]\ncors_origins = ["app.example"]', "cors_origins: 'app.example' is not"),
        ('[edge]\ncors_origins = ["https://a.example/"]', "cors_origins: 'https://a.example/' is"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str | None, reason: str, tmp_path: Path) -> None:
    """The file and the reason."""
    path = tmp_path / "pomogator.toml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ConfigError, match=reason) as refused:
        load_tables(path)

    assert str(refused.value).startswith(f"{path}: ")
