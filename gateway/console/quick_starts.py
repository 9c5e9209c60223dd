"""Quick starts: commands and programs that call this gateway, ready to be copied.

They read the key from the variable POMOGATOR_KEY: no page shows a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

KEY = "POMOGATOR_KEY"


class QuickStart(NamedTuple):
    """One client."""

    name: str
    code: str


def quick_starts(url: str, model: str) -> Sequence[QuickStart]:
    """Return the quick starts for the REST API at this URL, with this model."""
    return [QuickStart(name, _filled(code, url, model)) for name, code in _STARTS]


def _filled(code: str, url: str, model: str) -> str:
    for mark, value in (("@URL@", url), ("@MODEL@", model), ("@KEY@", KEY)):
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
