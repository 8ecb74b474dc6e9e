import { expect, it } from "vitest";
import type { Job } from "../api";
import { priorities, secondsLeft } from "./jobs.svelte";

const job = (id: string, created: number) => ({ id, created }) as Job;

it("gives an order by priorities, as few as it takes", () => {
  const [a, b, c] = [job("a", 1), job("b", 2), job("c", 3)];
  expect(priorities([a, b, c]).map(([, priority]) => priority)).toEqual([0, 0, 0]);
  expect(priorities([c, a, b]).map(([, priority]) => priority)).toEqual([1, 0, 0]);
  expect(priorities([c, b, a]).map(([, priority]) => priority)).toEqual([2, 1, 0]);
});

it("reckons the time left from the evaluations seen", () => {
  const drawing = { number: 0, done: 6, total: 20, since: 1000, from: 2 };
  expect(secondsLeft(drawing, 3000)).toBe(7);
  expect(secondsLeft({ ...drawing, done: 2 }, 3000)).toBeNull();
});
