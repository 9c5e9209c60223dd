"""The tokens of one answer, from reports that repeat and complete each other.

`message_start` gives what was read and a guess at what will be written; `message_delta`
gives the truth, sometimes of all figures and sometimes only of the output. Figures are
cumulative: the last one counts, nothing is added up. The exception are iterations of
other types than `message` (compaction, advisors): they are billed on top and the
top-level figures leave them out.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from pomogator.chat.v1 import usage_pb2

from services.providers.anthropic.events import Iteration, UsageReport
from services.providers.base import TOKENS_MAX

SERVICE_TIERS: Mapping[str, str] = {"standard": "default"}
"""The API's tiers that go by another name in our contract."""

_FIELDS = UsageReport.__struct_fields__
_READ = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class UsageCount:
    """Merges the reports of one answer."""

    def __init__(self) -> None:
        self._known = UsageReport()
        self._reported = False

    def add(self, report: UsageReport) -> None:
        """Takes a later report into account: what it says replaces what was known."""
        says = {name: value for name in _FIELDS if (value := getattr(report, name)) is not None}
        if not any(says.get(name) for name in _READ):
            # Nothing was read? Proxies fill in zeros where they do not know.
            says = {name: value for name, value in says.items() if name not in _READ}
        self._known = msgspec.structs.replace(self._known, **says)
        self._reported = True

    @property
    def service_tier(self) -> str:
        """The tier that served the answer; empty where it is not said."""
        tier = self._known.service_tier or ""
        return SERVICE_TIERS.get(tier, tier)

    @property
    def usage(self) -> usage_pb2.Usage | None:
        """All tokens of the answer so far. None: nothing was reported that can be true."""
        if not self._reported:
            return None
        known = self._known
        others = [run for run in known.iterations or () if run.type != "message"]
        runs: list[UsageReport | Iteration] = [known, *others]
        written = sum(run.cache_creation_input_tokens or 0 for run in runs)
        cached = sum(run.cache_read_input_tokens or 0 for run in runs)
        prompt = sum(run.input_tokens or 0 for run in runs) + written + cached
        completion = sum(run.output_tokens or 0 for run in runs)
        details = known.output_tokens_details
        thinking = (details.thinking_tokens or 0) if details else 0
        kept = sum(_kept_for_an_hour(run) for run in runs)
        figures = (prompt, completion, written, cached, thinking, kept)
        if not 0 <= min(figures) <= max(figures) <= TOKENS_MAX:
            return None
        return usage_pb2.Usage(
            prompt_token_count=prompt,
            completion_token_count=completion,
            total_token_count=prompt + completion,
            thinking_token_count=min(thinking, completion),
            cache_read_token_count=cached,
            cache_write_token_count=written,
            cache_write_1h_token_count=min(kept, written),
            source=usage_pb2.USAGE_SOURCE_PROVIDER,
        )


def _kept_for_an_hour(run: UsageReport | Iteration) -> int:
    creation = run.cache_creation
    return (creation.ephemeral_1h_input_tokens or 0) if creation else 0
