"""Compare the shipped models with the providers' lists: `make models`, or `--write`.

Each shipped channel is asked for its models if the variable of its key is set. Models that are
gone are printed, and `--write` removes them from the file. New models are printed as lines to
paste: a maintainer selects and names them, since the lists include models without chat.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import msgspec

from services.config import ChannelConfig, Config, load
from services.providers.registry import DIALECTS
from services.providers.request_heads import configured_headers

SHIPPED = Path(__file__).parents[1] / "services" / "config" / "defaults.toml"
TIMEOUT_S = 30.0


class Row(msgspec.Struct):
    """Model in a provider's list."""

    id: str


class Page(msgspec.Struct):
    """Provider's answer to GET /models. Only Anthropic's has several pages."""

    data: list[Row]
    has_more: bool = False
    last_id: str | None = None


async def listed(channel: ChannelConfig) -> set[str]:
    """Return the names of all models that the provider lists. Raise aiohttp.ClientError."""
    names: set[str] = set()
    # The version is Anthropic's; others ignore it.
    version = {"anthropic-version": channel.quirks.anthropic_version}
    credentials = DIALECTS[channel.dialect].auth_headers(channel.key.reveal())
    headers = version | dict(credentials) | dict(configured_headers(channel))
    query = dict(channel.query)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        while True:
            url = f"{channel.base_url}/models"
            async with session.get(url, headers=headers, params=query) as answer:
                page = msgspec.json.decode(await answer.read(), type=Page)
            names.update(row.id for row in page.data)
            if not page.has_more or not page.last_id:
                return names
            query["after_id"] = page.last_id


def gone(channel: ChannelConfig, names: set[str]) -> Mapping[str, str]:
    """Return the channel's models that the provider no longer lists."""
    return {public: name for public, name in channel.models.items() if name not in names}


def new(channel: ChannelConfig, names: set[str]) -> list[str]:
    """Return the provider's models that the channel does not serve, as lines of TOML."""
    prefixes = Counter(
        public.removesuffix(name)
        for public, name in channel.models.items()
        if public.endswith(name)
    )
    prefix = prefixes.most_common(1)[0][0] if prefixes else ""
    fresh = sorted(names - set(channel.models.values()))
    return [f'"{prefix}{name}" = "{name}"' for name in fresh]


def without(text: str, models: Mapping[str, str]) -> str:
    """Return the file's text without the lines of these models."""
    lines = {f'"{public}" = "{name}"' for public, name in models.items()}
    return "".join(line for line in text.splitlines(keepends=True) if line.strip() not in lines)


async def compared(config: Config) -> tuple[list[str], dict[str, str]]:
    """Return the lines to print for each channel, and the models that are gone."""
    report: list[str] = []
    lost: dict[str, str] = {}
    for channel in config.channels:
        names = await listed(channel)
        missing = gone(channel, names)
        report.append(f"# {channel.name}: {len(names)} listed, {len(missing)} gone")
        report += [f"# gone: {public}" for public in missing]
        report += new(channel, names)
        lost.update(missing)
    return report, lost


def main() -> None:
    """Compare the models of all providers whose keys are set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="remove the models that are gone")
    options = parser.parse_args()
    config = load(None, os.environ, dialects=DIALECTS)
    if not config.channels:
        sys.exit("No provider's key is set; see services/config/defaults.toml for the variables.")
    report, lost = asyncio.run(compared(config))
    if options.write:
        SHIPPED.write_text(without(SHIPPED.read_text("utf-8"), lost), "utf-8")
    sys.stdout.write("\n".join([*report, ""]))


if __name__ == "__main__":
    main()
