// Server-sent events of a fetched stream, as `EventSource` cannot send a POST.

export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) {
        yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  }
}
