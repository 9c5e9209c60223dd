"""Facts about a call that only its row in the call log has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from services.common.call_names import GRPC_SURFACE
from services.domain.events import Note

NAME_CHARS_MAX = 255
"""The most characters of a caller's own name, such as that of its end user."""

NOTES_MAX = 16
"""The most notes of a call that are kept."""


class CallerEnd(NamedTuple):
    """End of a call for its caller, while its answer is read on without one."""

    end: str
    code: str
    reason: str
    ended_at: float


class CallFacts(msgspec.Struct, kw_only=True, gc=False):
    """Facts about a call. It holds names and numbers: never a prompt, an answer or a key."""

    surface: str = GRPC_SURFACE
    """API that was called: one of `services.common.call_names.SURFACES`, else `GRPC_SURFACE`."""
    end_user: str = ""
    """End user, as the caller names it."""
    session: str = ""
    """Session, as the caller names it."""
    tags: Mapping[str, str] | None = None
    """Labels of the caller. None: it has given none."""
    hold_id: str = ""
    """ID of the hold. Empty: the call has none."""
    hold_ms: int = 0
    """Time of the hold."""
    completion_id: str = ""
    """ID of the answer; empty before an answer begins."""
    served_model: str = ""
    """Public name of the model that answers."""
    notes: Sequence[Note] = ()
    """At most `NOTES_MAX` changes of parameters."""
    note_count: int = 0
    """Number of all changes."""
    cost_nano: int = 0
    """Price of the usage before the markup, in nano-USD."""
    caller_end: CallerEnd | None = None
    """Set when the caller has left, and the hold has not ended."""

    def keep_notes(self, notes: Sequence[Note]) -> None:
        """Keep the notes of the answer."""
        self.notes, self.note_count = notes[:NOTES_MAX], len(notes)
