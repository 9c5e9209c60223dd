from __future__ import annotations

import logging

import pytest

from services.config import ChannelConfig, Config
from services.serving.unpriced_models import log_unpriced


def test_models_without_a_price_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One event names all of them; without any there is none."""
    models = {"v/b": "b", "v/a": "a", "openai/gpt-5": "x", "fast": "gpt-5"}
    vendor = ChannelConfig(name="v", dialect="openai", base_url="http://v.test", models=models)
    local = ChannelConfig(name="l", dialect="openai", local="smollm2-135m", models={"m": "m"})

    with caplog.at_level(logging.WARNING):
        log_unpriced(Config(channels=(local,)))
        log_unpriced(Config(channels=(vendor, local)))

    (record,) = caplog.records
    assert (record.message, vars(record)["models"]) == ("models.unpriced", ["v/a", "v/b"])
