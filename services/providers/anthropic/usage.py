"""Token usage of one answer, merged from several reports.

Calls of tools that the provider runs are counted by their blocks, too: an answer that breaks off
reports none, nor do some servers.

`message_start` reports the input tokens and an estimate of the output tokens. `message_delta`
reports the final figures, sometimes all of them and sometimes only the output. Figures are
cumulative: the last one counts, and none are added up. The exceptions are iterations of types other
than `message` (compaction, advisors): they are billed in addition, and the top-level figures do not
include them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from services.domain.usage import Usage
from services.providers.anthropic import wire
from services.providers.anthropic.wire import Iteration, UsageReport
from services.providers.base import TOKENS_MAX

SERVICE_TIERS: Mapping[str, str] = {"standard": "default"}
"""Service tiers by the API's name, where the contract's name differs."""

CALL = "server_tool_use"
RESULT, ERROR = "_tool_result", "_error"
"""Endings of the types of a result's block, and of its content where the call has failed."""

_FIELDS = UsageReport.__struct_fields__
_READ = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class UsageCount:
    """Merged usage reports of one answer."""

    def __init__(self) -> None:
        self._known = UsageReport()
        self._reported = False
        self._others: wire.Json = {}
        self._tool_calls: dict[str, int] = {}

    def add(self, usage: msgspec.Raw) -> None:
        """Merge a later report: its figures replace earlier ones. Raises UPSTREAM_BAD_RESPONSE."""
        report = wire.read(usage, wire.USAGE) if bytes(usage) else None
        if report is None:
            return
        self._others |= wire.others(usage, wire.USAGE_FIELDS)
        reads = (
            report.input_tokens
            or report.cache_creation_input_tokens
            or report.cache_read_input_tokens
        )
        if reads and not self._reported:
            self._known, self._reported = report, True
            return
        says = {name: value for name in _FIELDS if (value := getattr(report, name)) is not None}
        if not reads:
            # Proxies report zeros where they do not know the figures.
            says = {name: value for name, value in says.items() if name not in _READ}
        self._known = msgspec.structs.replace(self._known, **says)
        self._reported = True

    def add_blocks(self, content: Iterable[msgspec.Raw]) -> None:
        """Count the calls of the blocks of a whole answer."""
        for block in content:
            kind = wire.read(block, wire.KIND).type
            if kind == CALL or kind.endswith(RESULT):
                self.add_block(block, kind)

    def add_block(self, content: msgspec.Raw, kind: str) -> None:
        """Count a call of a tool that the provider runs. One that has failed is not billed."""
        if kind == CALL:
            self._count(wire.read(content, wire.SERVER_BLOCK).name or "", 1)
        elif kind.endswith(RESULT):
            result = wire.read(content, wire.SERVER_BLOCK).content
            if bytes(result)[:1] == b"{" and wire.read(result, wire.KIND).type.endswith(ERROR):
                self._count(kind.removesuffix(RESULT), -1)

    @property
    def service_tier(self) -> str:
        """The service tier that served the answer. Empty if not reported."""
        tier = self._known.service_tier or ""
        return SERVICE_TIERS.get(tier, tier)

    @property
    def usage(self) -> Usage | None:
        """The usage so far. None: no plausible figures were reported."""
        if not self._reported:
            counts = self._tool_counts()
            return Usage(source="provider", provider_tool_counts=counts) if counts else None
        known = self._known
        runs: list[UsageReport | Iteration] = [known]
        if known.iterations:
            runs += [run for run in known.iterations if run.type != "message"]
        written = cached = prompt = completion = kept = 0
        for run in runs:
            written += run.cache_creation_input_tokens or 0
            cached += run.cache_read_input_tokens or 0
            prompt += run.input_tokens or 0
            completion += run.output_tokens or 0
            if run.cache_creation is not None:
                kept += run.cache_creation.ephemeral_1h_input_tokens or 0
        prompt += written + cached
        details = known.output_tokens_details
        thinking = (details.thinking_tokens or 0) if details else 0
        figures = (prompt, completion, written, cached, thinking, kept)
        if not 0 <= min(figures) <= max(figures) <= TOKENS_MAX:
            return None
        return Usage(
            prompt_token_count=prompt,
            completion_token_count=completion,
            total_token_count=prompt + completion,
            thinking_token_count=min(thinking, completion),
            cache_read_token_count=cached,
            cache_write_token_count=written,
            cache_write_1h_token_count=min(kept, written),
            source="provider",
            provider_tool_counts=self._tool_counts() if self._tool_calls or self._others else {},
            extra_json=msgspec.json.encode(self._others) if self._others else b"",
        )

    def _count(self, tool: str, calls: int) -> None:
        self._tool_calls[tool] = self._tool_calls.get(tool, 0) + calls

    def _tool_counts(self) -> dict[str, int]:
        """Return the calls of each tool: those that are reported or those of the blocks."""
        if not self._tool_calls and "server_tool_use" not in self._others:
            return {}  # The usual case.
        return dict(
            Counter(self._tool_calls) | Counter(_reported(self._others.get("server_tool_use")))
        )


def _reported(report: object) -> dict[str, int]:
    """Return the calls of tools in `server_tool_use`, such as `web_search_requests`."""
    counts = report.items() if isinstance(report, dict) else ()
    return {
        name.removesuffix("_requests"): count
        for name, count in counts
        if type(count) is int and 0 < count <= TOKENS_MAX  # No boolean.
    }
