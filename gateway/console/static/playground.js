// Playground: a conversation over the gateway's own API. It is kept in this tab alone.

import { events } from "./events.js";

const form = document.getElementById("playground");
const conversation = document.getElementById("conversation");
const fields = form.elements;
const messages = [];
let running = null;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) {
    send();
  }
});

fields.message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    form.requestSubmit();
  }
});

fields.stop.addEventListener("click", () => running?.abort());

fields.clear.addEventListener("click", () => {
  running?.abort();
  messages.length = 0;
  conversation.replaceChildren();
  fields.message.focus();
});

// Until here the form cannot be sent: the browser itself would put the message into a URL.
setRunning(false);

async function send() {
  messages.push({ role: "user", content: fields.message.value });
  addTurn(form.dataset.you).text.textContent = fields.message.value;
  fields.message.value = "";
  const turn = addTurn(fields.model.value);
  running = new AbortController();
  setRunning(true);
  try {
    const said = await answer(turn, running.signal);
    messages.push({ role: "assistant", content: said });
  } catch (error) {
    if (error.name !== "AbortError") {
      fail(turn, error.message);
    }
    messages.push({ role: "assistant", content: turn.text.textContent });
  }
  running = null;
  setRunning(false);
  fields.message.focus();
}

async function answer(turn, signal) {
  const began = performance.now();
  const response = await fetch(form.dataset.url, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": form.dataset.csrf },
    body: JSON.stringify(requestBody()),
    signal,
  });
  showRequest(turn, response.headers.get("x-request-id"));
  if (!response.ok) {
    const { error } = await response.json();
    throw new Error(`${response.status} ${error.code}: ${error.message}`);
  }
  showNotes(turn, response.headers);
  let first = 0;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      break;
    }
    first ||= performance.now();
    showChunk(turn, JSON.parse(data));
    conversation.scrollTop = conversation.scrollHeight;
  }
  turn.show("first", seconds(first - began));
  turn.show("total", seconds(performance.now() - began));
  return turn.text.textContent;
}

function requestBody() {
  const system = fields.system.value.trim();
  const body = {
    model: fields.model.value,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    stream: true,
    stream_options: { include_usage: true },
    usage: { include: true },
  };
  for (const name of ["max_tokens", "temperature"]) {
    if (fields[name].value) {
      body[name] = Number(fields[name].value);
    }
  }
  return body;
}

function showChunk(turn, chunk) {
  if (chunk.error) {
    throw new Error(`${chunk.error.code}: ${chunk.error.message}`);
  }
  if (chunk.model) {
    turn.show("model", chunk.model);
  }
  const [choice] = chunk.choices ?? [];
  if (choice?.delta?.reasoning_content) {
    turn.reasoning.hidden = false;
    turn.reasoning.querySelector("p").append(choice.delta.reasoning_content);
  }
  if (choice?.delta?.content) {
    turn.text.append(choice.delta.content);
  }
  if (choice?.finish_reason) {
    turn.show("finish", choice.finish_reason);
  }
  if (chunk.usage) {
    const count = new Intl.NumberFormat(form.dataset.language);
    turn.show("prompt", count.format(chunk.usage.prompt_tokens));
    turn.show("completion", count.format(chunk.usage.completion_tokens));
    turn.show("cost", money(chunk.usage.cost ?? 0));
  }
}

function showRequest(turn, id) {
  turn.show("request", id).href = `/console/calls?request_id=${encodeURIComponent(id)}`;
}

function showNotes(turn, headers) {
  const notes = JSON.parse(headers.get("x-pomogator-notes") ?? "[]");
  const lines = notes.map((note) => `${note.param} ${note.action}: ${note.detail}`);
  const omitted = headers.get("x-pomogator-notes-omitted");
  if (omitted) {
    lines.push(`${form.dataset.omitted} ${omitted}`);
  }
  for (const line of lines) {
    const item = document.createElement("li");
    item.textContent = line;
    turn.notes.append(item);
  }
}

function fail(turn, message) {
  const line = document.createElement("p");
  line.className = "fault";
  line.setAttribute("role", "alert");
  line.textContent = `${form.dataset.failed}: ${message}`;
  turn.text.after(line);
}

function addTurn(name) {
  const element = document.getElementById("turn").content.cloneNode(true).firstElementChild;
  element.querySelector("h2").textContent = name;
  conversation.append(element);
  conversation.scrollTop = conversation.scrollHeight;
  const usage = element.querySelector(".usage");
  return {
    text: element.querySelector(".text"),
    reasoning: element.querySelector(".reasoning"),
    notes: element.querySelector(".notes"),
    show(fact, value) {
      usage.hidden = false;
      const element = usage.querySelector(`[data-fact=${fact}]`);
      element.textContent = value;
      return element;
    },
  };
}

function setRunning(runs) {
  fields.send.disabled = runs;
  fields.stop.disabled = !runs;
}

function money(usd) {
  const style = { style: "currency", currency: "USD", maximumFractionDigits: 6 };
  return new Intl.NumberFormat(form.dataset.language, style).format(usd);
}

function seconds(ms) {
  const style = { style: "unit", unit: "second", maximumFractionDigits: 2 };
  return new Intl.NumberFormat(form.dataset.language, style).format(ms / 1000);
}
