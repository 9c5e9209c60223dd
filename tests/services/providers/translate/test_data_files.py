"""Base64 of sound and files, which some clients write with line breaks or without padding."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.conversation import AudioPart, ContentPart, FilePart, Message
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from services.providers.translate.data_files import repaired, repaired_uri
from tests.services.providers.targets import target_of

PLAIN = "+/8AaGVsbG8gd29ybGQ="
FORMS = [
    "+/8AaGVsbG8gd29ybGQ",
    "+/8AaGVs\r\nbG8gd29y\nbGQ=",
    "-_8AaGVsbG8gd29ybGQ",
    " +/8A aGVsbG8gd29ybGQ== ",
]


@given(st.binary(max_size=80), st.integers(1, 40))
def test_all_forms_have_the_same_bytes(data: bytes, width: int) -> None:
    """Lines of any width, the alphabet for URLs, no padding; what is right stays."""
    plain = base64.b64encode(data).decode()
    lines = "\n".join(plain[at : at + width] for at in range(0, len(plain), width))
    safe = base64.urlsafe_b64encode(data).decode().rstrip("=")

    assert [repaired(each) for each in (plain, lines, safe)] == [plain] * 3


@pytest.mark.parametrize("text", ["ab c!", "ä\n", "a", "\ud800\n"])
def test_other_text_stays(text: str) -> None:
    """The provider says what it makes of it."""
    assert repaired(text) == text


@pytest.mark.parametrize(
    "uri",
    ["https://a.example/a_b.pdf", "data:text/plain,a b_c", "file-1", "data:text/plain;base64"],
)
def test_other_addresses_stay(uri: str) -> None:
    """Only data URLs have base64."""
    assert repaired_uri(uri) == uri


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
@pytest.mark.parametrize("form", [PLAIN, *FORMS])
def test_sound_and_files_are_sent_in_plain_base64(dialect: str, form: str) -> None:
    """A provider gets what it can decode."""
    parts: list[ContentPart] = [
        AudioPart(base64=form, format="wav"),
        FilePart(uri=f"data:application/pdf;base64,{form}"),
    ]
    spec = ChatCompletionSpec(model="m", messages=[Message(role="user", content=parts)])

    body = DIALECTS[dialect].encode(spec, target_of("some-model", dialect), Notes()).body

    sound, file = json.loads(body)["messages"][0]["content"]
    assert sound["input_audio"]["data"] == PLAIN
    assert file["file"]["file_data"] == f"data:application/pdf;base64,{PLAIN}"
