import { expect, it } from "vitest";
import type { Job } from "../api";
import { priorities, secondsLeft } from "./jobs.svelte";

const job = (id: string, created: number) => ({ id, created }) as Job;

it("gives an order by priorities within their range", () => {
  const given = (...created: number[]) =>
    priorities(created.map((each) => job(String(each), each))).map(([, priority]) => priority);
  expect(given(1, 2, 3)).toEqual([2, 1, 0]);
  expect(given(3, 1, 2)).toEqual([2, 1, 0]);
  const late = Array.from({ length: 40 }, (_, index) => index);
  late.splice(20, 0, ...late.splice(30, 1));
  expect(given(...late)).toEqual(late.map((_, index) => (index <= 20 ? 1 : 0)));
  expect(Math.max(...given(...late.toReversed()))).toBe(10);
});

it("reckons the time left from the evaluations seen", () => {
  const drawing = { number: 0, done: 6, total: 20, since: 1000, from: 2, layers: {} };
  expect(secondsLeft(drawing, 3000)).toBe(7);
  expect(secondsLeft({ ...drawing, done: 2 }, 3000)).toBeNull();
});
