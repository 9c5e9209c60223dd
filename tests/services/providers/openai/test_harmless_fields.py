"""Unknown fields on a channel that passes those of the shipped table, which is the default."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import ChannelConfig
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.openai.harmless_fields import folded
from services.providers.registry import DIALECTS
from tests.services.providers.openai.test_pass_through import spellings
from tests.services.providers.targets import target_of, told

COSTLY = (  # noqa: SIM905 - words are easier to read
    "service_tier generation_config search_parameters modalities audio mcp_servers data_sources "
    "web_search_options enable_search search_options prediction priority speed thinking_budget "
    "thinking_config reasoning reasoning_effort enable_code_interpreter vl_high_resolution_images "
    "store metadata prompt_cache_retention prompt_cache_options previous_response_id conversation "
    "background deferred compound_custom search_settings documents chat_template citations "
    "return_images safety_settings extra_body google system_instruction cached_content "
    "tools_config webhook_url callback_url endpoint base_url api_base file_ids container "
    "vector_store_ids kv_transfer_params lora lora_path lora_request logits_processors "
    "mm_processor_kwargs use_beam_search best_of id_slot session_id trace user_location moderation "
    "speculation prompt_logprobs num_ctx options keep_alive max_tool_calls"
).split()
"""Fields that change a price, keep data, hold an address or add to the prompt, at some provider."""

HARMLESS: dict[str, Any] = {
    "stop_token_ids": [1, 2],
    "guided_json": {"type": "object", "properties": {"url": {"$ref": "#/$defs/u"}}},
    "guided_choice": ["yes", "no"],
    "chat_template_kwargs": {"enable_thinking": False, "thinking": True},
    "structured_outputs": {"json": {"type": "string"}, "whitespace_pattern": " "},
    "enable_thinking": False,
    "repeat_penalty": 1.1,
    "dry_sequence_breakers": ["\n", ":"],
    "grammar": "root ::= 'a'",
    "include_reasoning": True,
}


def encode(
    extra: object, dialect: str = "openai", *, strict: bool = False, **channel: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body for a request with these fields, and its notes."""
    target = target_of("m", dialect)
    config = ChannelConfig(name="c", dialect=dialect, base_url="http://v.test", **channel)
    target = Target(channel=config, model="m", public_model="m", capabilities=target.capabilities)
    hello = Message(role="user", content=[TextPart(text="hello")])
    spec = ChatCompletionSpec(model="m", messages=[hello], extra_json=json.dumps(extra).encode())
    notes = Notes(strict=strict)
    body = DIALECTS[dialect].encode(spec, target, notes).body
    return json.loads(body), told(notes)


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
@pytest.mark.parametrize("name", COSTLY)
def test_other_fields_do_not_travel(name: str, dialect: str) -> None:
    """In no spelling and with no value, and not without a note. In strict mode they are refused."""
    plain, _ = encode({}, dialect)
    for spelling in spellings(name):
        for value in (
            True,
            "x",
            ["x"],
            {"url": "http://x.test"},
            [{"parameters": {"endpoint": 1}}],
        ):
            body, notes = encode({spelling: value}, dialect)
            assert body == plain
            assert notes
            with pytest.raises(Failure) as refused:
                encode({spelling: value}, dialect, strict=True)
            assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_fields_travel(name: str, dialect: str) -> None:
    """As they were sent, in any spelling, also in strict mode."""
    for spelling in spellings(name):
        body, notes = encode({spelling: HARMLESS[name]}, dialect, strict=True)
        assert body[spelling] == HARMLESS[name]
        assert not notes


@pytest.mark.parametrize(
    ("sent", "passed", "held"),
    [
        (
            {"chat_template_kwargs": {"enable_thinking": True, "tokenize": True}},
            {"chat_template_kwargs": {"enable_thinking": True}},
            {"chat_template_kwargs.tokenize"},
        ),
        (
            {"chat_template_kwargs": {"thinking": {"endpoint": "http://x.test"}}},
            {},
            {"chat_template_kwargs.thinking"},
        ),
        ({"chatTemplateKwargs": {"Chat-Template": "x"}}, {}, {"extra_json"}),
        ({"chat_template_kwargs": "x"}, {}, {"chat_template_kwargs"}),
        ({"stop_token_ids": [[{"url": "x"}]]}, {}, {"stop_token_ids"}),
        ({"enable_thinking": True}, {}, {"enable_thinking"}),
        ({"guided_json": {"$ref": "http://x.test/s.json"}}, {}, {"guided_json"}),
        ({"guided_json": [{"a": {"$ref": "file:///etc/passwd"}}]}, {}, {"guided_json"}),
        ({"json_schema": '{"$ref":"http://x.test/s.json"}'}, {}, {"json_schema"}),
        ({"structured_outputs": {"json": {"$ref": "//x"}}}, {}, {"structured_outputs.json"}),
    ],
)
def test_values_are_checked_at_every_depth(
    sent: dict[str, object], passed: dict[str, object], held: set[str]
) -> None:
    """What is not known in a harmless field is held back, with its name in a note."""
    plain, _ = encode({})
    body, notes = encode(sent)

    assert body == {**plain, **passed}
    assert notes.keys() == held


def test_own_servers_get_all_but_what_never_travels() -> None:
    """`pass_through = true`, with numbers as they were written."""
    extra = {"documents": [{"text": "x"}], "my_own": {"url": "u"}, "serviceTier": "priority"}
    body, notes = encode(extra, pass_through=True)

    assert (body["documents"], body["my_own"]) == ([{"text": "x"}], {"url": "u"})
    assert notes.keys() == {"serviceTier"}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "endpoint", "thinking", "json", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*COSTLY, *HARMLESS]) | st.text(max_size=9), _json))
def test_whatever_is_sent_arrives_or_is_noted(extra: dict[str, object]) -> None:
    """A field is passed on, has a note, or is null; known ones are never replaced."""
    plain, _ = encode({})
    body, notes = encode(extra)

    assert plain.items() <= body.items()
    for name in {folded(each) for each in body} - {folded(each) for each in plain}:
        assert name in {folded(each) for each in HARMLESS} | {"user"}
    lost = [name for name, value in extra.items() if name not in body and value is not None]
    assert not lost or notes


@pytest.mark.parametrize("number", [21, 150_000, -1, 1.5, "9", [1]])
def test_alternatives_of_tokens_are_few(number: object) -> None:
    """A server gives as many as it is asked for, megabytes a token."""
    body, notes = encode({"n_probs": number})

    assert "n_probs" not in body
    assert "n_probs" in notes
    assert encode({"n_probs": 20})[0]["n_probs"] == 20


def test_a_schema_as_a_text_of_great_depth_is_held_back() -> None:
    """Its references cannot be looked for."""
    body, notes = encode({"guided_json": "[" * 100_000})

    assert "guided_json" not in body
    assert "guided_json" in notes
