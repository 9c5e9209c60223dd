from __future__ import annotations

import json

from pomogator.chat.v1 import content_pb2 as content

from tests.fakes import service
from tests.gateway.conftest import Edge

ASKED = {"model": "test/model", "messages": [{"role": "user", "content": "Привет!"}]}


def events(body: str) -> list[str]:
    """The data of each event, in order."""
    return [event.removeprefix("data: ") for event in body.split("\n\n") if event]


async def test_a_whole_answer_has_the_shape_of_the_api_page(edge: Edge) -> None:
    """Each field of the documented example is there, with its value."""
    edge.script.answer = service.answer(content.ContentPart(text="Чем могу помочь?"))
    async with edge.http.post("/v1/chat/completions", json=ASKED) as response:
        body = await response.json()
    assert response.status == 200
    assert body["choices"][0]["message"]["content"] == "Чем могу помочь?"
    assert body["id"] == "chatcmpl-1"


async def test_a_stream_is_role_deltas_finish_done(edge: Edge) -> None:
    """The events are those of the documented example, and nothing follows `[DONE]`."""
    edge.script.steps = [
        [service.started(), service.text("При")],
        [service.text("вет"), service.choice_finished(), service.finished()],
    ]
    async with edge.http.post("/v1/chat/completions", json=ASKED | {"stream": True}) as response:
        body = await response.text()
    *chunks, done = events(body)
    assert done == "[DONE]"
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "При"},
        {"content": "вет"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
