"""Quick starts: commands and programs that call this gateway, ready to be copied.

They read the key from the variable POMOGATOR_KEY: no page shows a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

KEY = "POMOGATOR_KEY"


class QuickStart(NamedTuple):
    """One client."""

    name: str
    code: str


def quick_starts(url: str, model: str, grpc: str = "") -> Sequence[QuickStart]:
    """Return the quick starts for the REST API at this URL, with this model.

    `grpc` is the gRPC listener, HOST:PORT, with TLS where the URL has it. Empty: it is not known.
    """
    marks = {"@URL@": url, "@MODEL@": model, "@KEY@": KEY, "@CHANNEL@": _channel(url, grpc)}
    starts = [*_STARTS, _GRPC] if grpc else _STARTS
    return [QuickStart(name, _filled(code, marks)) for name, code in starts]


def _channel(url: str, grpc: str) -> str:
    if url.startswith("https:"):
        return f'grpc.secure_channel("{grpc}", grpc.ssl_channel_credentials())'
    return f'grpc.insecure_channel("{grpc}")'


def _filled(code: str, marks: Mapping[str, str]) -> str:
    for mark, value in marks.items():
        code = code.replace(mark, value)
    return code.strip("\n")


_STARTS: Sequence[tuple[str, str]] = (
    (
        "curl",
        """
curl @URL@/v1/chat/completions \\
  -H "Authorization: Bearer $@KEY@" -H "Content-Type: application/json" \\
  -d '{"model": "@MODEL@", "stream": true,
       "messages": [{"role": "user", "content": "Hello!"}]}'
""",
    ),
    (
        "Python: openai",
        """
import os
from openai import OpenAI

client = OpenAI(base_url="@URL@/v1", api_key=os.environ["@KEY@"])
answer = client.chat.completions.create(
    model="@MODEL@",
    messages=[{"role": "user", "content": "Hello!"}],
)
print(answer.choices[0].message.content)
""",
    ),
    (
        "JavaScript: openai",
        """
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "@URL@/v1",
  apiKey: process.env.@KEY@,
});
const answer = await client.chat.completions.create({
  model: "@MODEL@",
  messages: [{ role: "user", content: "Hello!" }],
});
console.log(answer.choices[0].message.content);
""",
    ),
    (
        "Python: anthropic",
        """
import os
from anthropic import Anthropic

client = Anthropic(base_url="@URL@", api_key=os.environ["@KEY@"])
answer = client.messages.create(
    model="@MODEL@",
    max_tokens=1024,
    messages=[{"role": "user", "content": "Hello!"}],
)
print(answer.content[0].text)
""",
    ),
    (
        "Claude Code",
        """
ANTHROPIC_BASE_URL=@URL@ ANTHROPIC_AUTH_TOKEN=$@KEY@ \\
  ANTHROPIC_MODEL=@MODEL@ claude
""",
    ),
    (
        "Codex: ~/.codex/config.toml",
        """
model = "@MODEL@"
model_provider = "pomogator"

[model_providers.pomogator]
name = "pomogator"
base_url = "@URL@/v1"
env_key = "@KEY@"
wire_api = "responses"
""",
    ),
    (
        "LangChain",
        """
import os
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    base_url="@URL@/v1",
    api_key=os.environ["@KEY@"],
    model="@MODEL@",
)
print(model.invoke("Hello!").content)
""",
    ),
)

_GRPC = (
    "Python: gRPC",
    """
import os
import grpc
from pomogator_proto.chat.v1 import chat_completion_service_pb2 as chat, content_pb2 as content
from pomogator_proto.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub

request = chat.StreamChatCompletionRequest()
request.spec.model = "@MODEL@"
request.spec.messages.add(role=content.ROLE_USER).content.add(text="Hello!")
key = (("authorization", f"Bearer {os.environ['@KEY@']}"),)
with @CHANNEL@ as channel:
    for batch in ChatCompletionServiceStub(channel).StreamChatCompletion(request, metadata=key):
        print("".join(chunk.delta.text for chunk in batch.chunks), end="")
""",
)
"""The stubs are a wheel of their own, which `proto/README.md` makes."""
