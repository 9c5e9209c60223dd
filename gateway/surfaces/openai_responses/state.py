"""State of conversations: fields that rely on objects that OpenAI keeps.

Nothing is kept here. A request that relies on it is refused in OpenAI's words; `store` does not
stop one, since SDKs set it by default, but has a note where it was set.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from gateway.errors import ApiError
from gateway.surfaces.json_fields import boolean, text
from services.domain.error_reason import ErrorReason

KEPT: Mapping[str, str] = {
    "conversation": "Conversations are not kept here: send all items as `input`.",
    "prompt": "Prompt templates are not kept here: send `instructions` and `input`.",
}
"""Fields that name something kept, with the reason of a refusal."""


def read_state(fields: dict[str, Raw]) -> bool:
    """Read the fields about state. Returns whether the client expects items to be stored.

    Raises ApiError: the request relies on something that is kept, or is to run in the background.
    """
    if "previous_response_id" in fields:
        given = text("previous_response_id", fields["previous_response_id"])
        raise ApiError(
            ErrorReason.INVALID_FIELD,
            f"Previous response with id '{given[:128]}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    for name, message in KEPT.items():
        if name in fields:
            raise ApiError(ErrorReason.UNSUPPORTED_FEATURE, message, param=name)
    background = fields.pop("background", None)
    if background is not None and boolean("background", background):
        message = "Responses are not generated in the background here."
        raise ApiError(ErrorReason.UNSUPPORTED_FEATURE, message, param="background")
    if "store" not in fields:
        return True
    is_stored = boolean("store", fields["store"])
    if not is_stored:
        del fields["store"]
    return is_stored
