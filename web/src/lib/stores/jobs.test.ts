import { expect, it } from "vitest";
import type { Job } from "../api";
import { priorities, secondsLeft } from "./jobs.svelte";

const job = (id: string, created: number) => ({ id, created }) as Job;

it("gives an order by priorities within their range", () => {
  const order = (count: number) => Array.from({ length: count }, (_, index) => job(String(index), index));
  const given = (count: number) => priorities(order(count)).map(([, priority]) => priority);
  expect(given(3)).toEqual([2, 1, 0]);
  expect(given(40).slice(0, 3)).toEqual([10, 9, 8]);
  expect(given(40).at(-1)).toBe(-10);
});

it("reckons the time left from the evaluations seen", () => {
  const drawing = { number: 0, done: 6, total: 20, since: 1000, from: 2, layers: {} };
  expect(secondsLeft(drawing, 3000)).toBe(7);
  expect(secondsLeft({ ...drawing, done: 2 }, 3000)).toBeNull();
});
