"""One call of an authenticated caller, on its way through the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from services.admission.keyring import Caller
from services.admission.revocation import Revocation
from services.common.chat_names import CONTENT_HEADER, TEXT_CONTENT, THINKING_SUFFIX
from services.completions.snapshot import Snapshot
from services.domain.spec import CompletionRequest
from services.telemetry.calls import CallRecord


class CompletionCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an authenticated caller."""

    record: CallRecord
    """Record of the call, for logs, metrics and traces."""
    caller: Caller
    """The authenticated caller."""
    request: CompletionRequest
    """The request. Not validated yet."""
    snapshot: Snapshot
    """The configuration that the call uses to its end."""
    idempotency_key: str | None = None
    """The caller's idempotency key, if it sent one."""
    time_left_s: Callable[[], float | None] = lambda: None
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    revocation: Revocation | None = None
    """The revocation of the key, which ends the call. None: the call may finish."""

    @property
    def strict(self) -> bool:
        """Whether parameters that cannot be honoured are refused: by the call, else by the key."""
        policy = self.request.parameter_policy
        return policy == "strict" or (not policy and self.caller.scope.strict)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer that tell the edge how to show it."""
        asks_for_text = self.caller.scope.text_content or self.snapshot.reasoning.content == "text"
        by_name = self.request.spec.model.endswith(THINKING_SUFFIX)
        return {CONTENT_HEADER: TEXT_CONTENT} if asks_for_text and by_name else {}

    @property
    def hides_reasoning(self) -> bool:
        """Whether the caller wants an answer without its reasoning."""
        thinking = self.request.spec.thinking
        return thinking is not None and thinking.excluded
