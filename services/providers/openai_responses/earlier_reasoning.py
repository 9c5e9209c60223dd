"""Reasoning of earlier answers in OpenRouter's form, as items of the API.

    {"type": "reasoning.summary", "format": "openai-responses-v1", "id": "rs_…", "summary": …}
    {"type": "reasoning.text", …, "text": …}    {"type": "reasoning.encrypted", …, "data": …}

Details with one ID are one item. The provider keeps no answers, so that an item without its sealed
form means nothing to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.common.reasoning_fragments import Detail, word
from services.providers.base import Notes
from services.providers.openai_responses.answer_state import FORMAT
from services.providers.openai_responses.wire import Json
from services.providers.translate.reasoning_details import read_details

_OWN = FORMAT.rpartition("-")[0]
"""Beginning of the names of the format, whatever its version."""


def reasoning_items(details_json: bytes, notes: Notes) -> list[Json]:
    """Return the items in a message's `reasoning_details`.

    What the provider cannot continue is left out with a note. Raises INVALID_FIELD if the array
    cannot be read.
    """
    items: list[Json] = []
    for group in _groups(read_details(details_json)):
        item = _item(group)
        if "encrypted_content" in item:
            items.append(item)
        elif any(word(detail, "signature") or word(detail, "data") for detail in group):
            notes.dropped("messages", "Reasoning of another provider cannot be continued here.")
        else:
            detail = "Reasoning of earlier turns is left out for this provider."
            notes.mapped("reasoning_details", detail)
    return items


def _groups(details: Iterable[Detail]) -> list[list[Detail]]:
    """Return the details of each item. Details of other formats are apart."""
    groups: list[list[Detail]] = []
    open_id: str | None = None
    for detail in details:
        is_own = word(detail, "format").startswith(_OWN)
        own_id = word(detail, "id") if is_own else None
        if not groups or own_id is None or own_id != open_id:
            groups.append([])
        groups[-1].append(detail)
        open_id = own_id
    return groups


def _item(group: Iterable[Detail]) -> Json:
    item: Json = {"type": "reasoning"}
    summary: list[Json] = []
    content: list[Json] = []
    for detail in group:
        if not word(detail, "format").startswith(_OWN):
            continue
        if item_id := word(detail, "id"):
            item["id"] = item_id
        if text := word(detail, "summary"):
            summary.append({"type": "summary_text", "text": text})
        if text := word(detail, "text"):
            content.append({"type": "reasoning_text", "text": text})
        if data := word(detail, "data"):
            item["encrypted_content"] = data
    return item | {"summary": summary} | ({"content": content} if content else {})
