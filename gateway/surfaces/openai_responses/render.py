"""Event renderer: the events of a stream as those of a response.

response.created response.in_progress
(response.output_item.added … response.output_item.done)*
response.completed | response.incomplete | response.failed
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from uuid import uuid4

from gateway.errors import ApiError
from gateway.surfaces.openai_responses.answer_members import MessageMembers, members_of
from gateway.surfaces.openai_responses.answer_output import AnswerOutput
from gateway.surfaces.openai_responses.failure_codes import failure_members
from gateway.surfaces.openai_responses.output_item import Json
from gateway.surfaces.openai_responses.response_events import ResponseEvents
from gateway.surfaces.openai_responses.response_object import (
    INCOMPLETE,
    AnswerForm,
    ResponseMembers,
    ResponseStatus,
    response_id,
    usage_members,
)
from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Event,
    ExtraDelta,
    Finished,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage


class EventRenderer:
    """Renderer of one stream, in order. Each result is whole server-sent events."""

    def __init__(
        self, form: AnswerForm, *, silent: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        """A silent one renders nothing: `response` is then the whole answer."""
        self.started = False
        self.finished = False
        self.response: Json = {}
        """The response at the end."""
        self._form = form
        self._now = now
        self._events = ResponseEvents(silent=silent)
        self._output = AnswerOutput(self._events, form, "")
        self._members = ResponseMembers(form=form, id="", model="", created_at=0)
        self._others: Json = {}
        self._state = ""
        self._finish_reason = ""

    def render(self, events: Iterable[Event]) -> bytes:
        """Render the events of one batch."""
        for each in events:
            self._event(each)
        return self._events.taken()

    def error(self, error: ApiError) -> bytes:
        """Render the failure of a stream that has begun. Items that are open stay so."""
        if not self.started:
            now, own_id = int(self._now()), uuid4().hex
            self._start(Started(completion_id=own_id, model=self._form.model, create_time_s=now))
        self._end("failed", {"error": failure_members(error)})
        return self._events.taken()

    def _event(self, each: Event) -> None:
        match each:
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolCallDelta():
                if each.index == 0:
                    self._output.add(each)
            case Started():
                self._start(each)
            case Finished():
                self._finish(each)
            case _:
                self._keep(each)

    def _keep(self, each: Event) -> None:
        """Keep what is told at the end."""
        match each:
            case ReasoningStateDelta():
                self._state = each.state
            case ExtraDelta():
                if each.index == 0:
                    members = MessageMembers.of(each.extra_json)
                    self._others |= self._output.add_members(members)
            case AnswerMembers():
                self._others |= members_of(each.extra_json)
                if each.system_fingerprint:
                    self._others["system_fingerprint"] = each.system_fingerprint
            case ChoiceFinished():
                if each.index == 0:
                    self._finish_reason = each.finish_reason
                    self._others |= members_of(each.extra_json)

    def _start(self, started: Started) -> None:
        self.started = True
        own_id = response_id(started.completion_id)
        self._members = ResponseMembers(
            form=self._form, id=own_id, model=started.model, created_at=started.create_time_s
        )
        self._output = AnswerOutput(self._events, self._form, own_id.removeprefix("resp_"))
        response = self._members.object("in_progress", (), {})
        for name in ("created", "in_progress"):
            self._events.write(f"response.{name}", {"response": response})

    def _finish(self, finished: Finished) -> None:
        self.finished = True
        reason = INCOMPLETE.get(self._finish_reason)
        self._output.end(self._state, "completed" if reason is None else "incomplete")
        members: Json = {"usage": usage_members(finished.usage or Usage())}
        if finished.service_tier:
            members["service_tier"] = finished.service_tier
        if reason is None:
            self._end("completed", {**members, "completed_at": int(self._now())})
        else:
            self._end("incomplete", {**members, "incomplete_details": {"reason": reason}})

    def _end(self, status: ResponseStatus, members: Json) -> None:
        own = self._members.object(status, self._output.items, members)
        self.response = {**self._others, **own}
        self._events.write(f"response.{status}", {"response": self.response})
