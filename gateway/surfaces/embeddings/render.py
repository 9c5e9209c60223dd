"""Renderer of answers: vectors as OpenAI's JSON."""

from __future__ import annotations

import binascii

import msgspec

from gateway.surfaces.embeddings.decode import Encoding
from gateway.surfaces.embeddings.float_text import numbers_json
from services.domain.embeddings import Embedding, Embeddings


def render(answer: Embeddings, encoding: Encoding) -> bytes:
    """Render an answer."""
    usage = {
        "prompt_tokens": answer.usage.prompt_token_count,
        "total_tokens": answer.usage.total_token_count,
    }
    rest = msgspec.json.encode({"model": answer.model, "usage": usage})
    items = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, _vector(each, encoding))
        for index, each in enumerate(answer.embeddings)
    )
    return b'{"object":"list","data":[%b],%b' % (items, rest[1:])


def _vector(embedding: Embedding, encoding: Encoding) -> bytes:
    if encoding == "base64":
        return b'"%b"' % binascii.b2a_base64(embedding.float32_le, newline=False)
    return embedding.numbers_json or numbers_json(embedding.float32_le)


def rendered_bytes(answer: Embeddings) -> int:
    """Return about how many bytes of text are read or written to render an answer."""
    sizes = (len(each.numbers_json) + 4 * len(each.float32_le) for each in answer.embeddings)
    return sum(sizes)
