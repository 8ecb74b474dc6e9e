/** Server-sent events of an answer to a POST, which `EventSource` cannot send. */

export interface ServerSentEvent {
  kind: string;
  data: unknown;
}

/** The events of a stream as they come. Leaving the loop closes the stream. */
export async function* serverSentEvents(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<ServerSentEvent> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (left + value).split(/\r?\n\r?\n/);
      left = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = parsed(block);
        if (event !== null) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** One event; null for what is none, such as a comment that keeps the connection open. */
function parsed(block: string): ServerSentEvent | null {
  const lines = block.split(/\r?\n/);
  const of = (name: string) =>
    lines
      .filter((line) => line.startsWith(`${name}:`))
      .map((line) => line.slice(name.length + 1).trimStart());
  const data = of("data");
  return data.length === 0 ? null : { kind: of("event")[0] ?? "message", data: JSON.parse(data.join("\n")) };
}
