from __future__ import annotations

from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content

from services.common.chat_names import EFFORT_NAMES, EFFORTS, ROLES


def test_each_role_of_the_contract_has_a_name() -> None:
    """But for the unspecified one, and no two share one."""
    assert sorted(ROLES.values()) == sorted(set(content.Role.values()) - {content.ROLE_UNSPECIFIED})


def test_each_effort_of_the_contract_has_a_name() -> None:
    """But for the unspecified one; the names are in the order of the efforts."""
    assert set(EFFORTS.values()) == (
        set(chat.ReasoningEffort.values()) - {chat.REASONING_EFFORT_UNSPECIFIED}
    )
    assert list(EFFORTS) == list(EFFORT_NAMES)
    assert EFFORTS["none"] == chat.REASONING_EFFORT_NONE
    assert EFFORT_NAMES[0] == "none"
    assert EFFORT_NAMES[-1] == "max"
