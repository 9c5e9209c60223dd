"""Inbound APIs: one folder each, and the code that all of them share.

Modules, in the order in which data flows:

    base                 the seam: `Surface`, which a new API implements
    openai_chat          OpenAI's chat completions
    openai_completions   OpenAI's older completions of a text
    openai_responses     OpenAI's Responses
    anthropic_messages   Anthropic's Messages
    embeddings           OpenAI's embeddings
    models               models that a key may use
    surface_handler      admission and decoding of all requests with a prompt
    completion_handler   decode, call, render, for every surface
    token_count_handler  decode, count, render
    images               images in requests, checked
    json_fields          typed reading of JSON fields, with errors for clients
    answer_headers       notes and cost of an answer, as headers
    unknown_members      members of JSON objects that no field has
    other_members        members of an answer that no field has
    content_order        content of an answer, each tool call in one piece
    reasoning_seals      sealed reasoning as one string
    reasoning_places     order of sealed reasoning, text and calls
    raw_body             bodies that the service may pass on as they are
    raw_rendering        answers that are passed on as they are
    event_stream         server-sent events, and keep-alive

A new API is a folder with one `Surface`, and a line in `SURFACES`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.surfaces.anthropic_messages.surface import AnthropicMessages
from gateway.surfaces.base import Surface
from gateway.surfaces.openai_chat.surface import OpenAIChat
from gateway.surfaces.openai_completions.surface import OpenAICompletions
from gateway.surfaces.openai_responses.surface import OpenAIResponses

__all__ = ["SURFACES"]

SURFACES: Sequence[Surface] = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIResponses(),
    AnthropicMessages(),
)
"""The APIs that the edge serves."""
