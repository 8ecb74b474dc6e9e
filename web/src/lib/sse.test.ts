import { expect, it } from "vitest";
import { serverSentEvents } from "./sse";

async function read(...pieces: string[]) {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(encoder.encode(piece));
      controller.close();
    },
  });
  const found = [];
  for await (const event of serverSentEvents(body)) found.push(event);
  return found;
}

it("reads events wherever the network cuts them", async () => {
  const text =
    'event: state\ndata: {"state":"running"}\n\n: ping\n\nevent: picture\ndata: {"content":"ä"}\n\n';
  const events = [
    { kind: "state", data: { state: "running" } },
    { kind: "picture", data: { content: "ä" } },
  ];
  expect(await read(text)).toEqual(events);
  expect(await read(...text)).toEqual(events);
});

it("leaves out what was cut off", async () => {
  expect(await read('event: state\ndata: {"state":"run')).toEqual([]);
});
