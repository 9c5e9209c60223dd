"""The dialects, by the names that the configuration uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from services.providers import anthropic, openai, openai_responses, openrouter
from services.providers.anthropic.request import NAMES as ANTHROPIC_NAMES
from services.providers.base import Dialect, PlainEncoder, Target
from services.providers.embeddings.base import EmbeddingDialect
from services.providers.embeddings.bedrock import BedrockEmbeddings
from services.providers.embeddings.cohere import CohereEmbeddings
from services.providers.embeddings.google import GoogleEmbeddings
from services.providers.embeddings.openai import OpenAiEmbeddings
from services.providers.embeddings.vertex import VertexEmbeddings
from services.providers.openai.plain_requests import plain_requests
from services.providers.openai.request import ALL_NAMES
from services.providers.openai.request import NAMES as OPENAI_NAMES
from services.providers.openai_responses.request import NAMES as RESPONSES_NAMES
from services.providers.openrouter.request import SETTINGS
from services.providers.raw_lane import RawLane

DIALECTS: Mapping[str, Dialect] = {
    "anthropic": anthropic.DIALECT,
    "openai": openai.DIALECT,
    "openai-responses": openai_responses.DIALECT,
    "openrouter": openrouter.DIALECT,
}
"""Every dialect of completions."""
_OPENAI_EMBEDDINGS = OpenAiEmbeddings()

EMBEDDING_DIALECTS: Mapping[str, EmbeddingDialect] = {
    "bedrock": BedrockEmbeddings(),
    "cohere": CohereEmbeddings(),
    "google": GoogleEmbeddings(),
    "openai": _OPENAI_EMBEDDINGS,
    "openrouter": _OPENAI_EMBEDDINGS,
    "vertex": VertexEmbeddings(),
}
"""Every dialect of embeddings."""

NAMES = DIALECTS.keys() | EMBEDDING_DIALECTS.keys()
"""The values of `dialect` in `[[channels]]`."""

RAW_LANES: Mapping[str, RawLane] = {
    "anthropic": anthropic.RAW_LANE,
    "openai-responses": openai_responses.RAW_LANE,
}
"""The raw lanes, by the dialects that have one."""

PLAIN_ENCODERS: Mapping[str, Callable[[Target], PlainEncoder | None]] = {
    "openai": plain_requests,
    "openrouter": partial(plain_requests, names=ALL_NAMES, settings=SETTINGS),
}
"""The encoders of plain requests to one target, by the dialects that have one."""

PARAMETER_NAMES: Mapping[str, Mapping[str, str]] = {
    "anthropic": ANTHROPIC_NAMES,
    "openai": OPENAI_NAMES,
    "openai-responses": RESPONSES_NAMES,
    "openrouter": ALL_NAMES,
}
"""The parameters of each dialect that are plain values, by the contract's names."""
