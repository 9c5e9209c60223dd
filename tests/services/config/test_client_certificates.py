"""The table `[client_certificates]`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from services import config as configuration
from services.config import ConfigError
from services.providers.registry import DIALECTS

load = partial(configuration.load, dialects=DIALECTS)

EDGE = "spiffe://cluster.local/ns/pomogator/sa/edge"


def table(folder: Path, rows: str) -> Path:
    """A configuration with these rows."""
    path = folder / "pomogator.toml"
    path.write_text(f"[client_certificates]\n{rows}\n")
    return path


def test_methods_services_and_everything(tmp_path: Path) -> None:
    """A row selects a method, a service or all methods, and lists the names that may call it."""
    rows = f"""
        "*" = ["admin.example"]
        "pomogator.models.v1.ModelService/*" = ["{EDGE}", "shop.web.svc"]
        "pomogator.chat.v1.ChatCompletionService/StreamChatCompletion" = ["{EDGE}"]
    """
    clients = load(table(tmp_path, rows), {}).client_certificates

    assert clients["pomogator.models.v1.ModelService/*"] == (EDGE, "shop.web.svc")
    assert len(clients) == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('"pomogator.models.v1.ModelServices/*" = ["a"]', "did you mean 'pomogator.models.v1"),
        ('"pomogator.chat.v1.ChatCompletionService/Stream" = ["a"]', "is not a method"),
        ('"pomogator.*" = ["a"]', "is not a method"),
        ('"*" = []', "has no names"),
        ('"*" = ["*.web.svc"]', "is not a name"),
        ('"*" = ["a b"]', "is not a name"),
        ('"*" = [""]', "is not a name"),
        ('"*" = "a"', "array"),
    ],
)
def test_a_row_without_effect_is_refused(tmp_path: Path, row: str, reason: str) -> None:
    """It would refuse the clients that it names."""
    with pytest.raises(ConfigError, match="client_certificates") as refused:
        load(table(tmp_path, row), {})

    assert reason in str(refused.value)
