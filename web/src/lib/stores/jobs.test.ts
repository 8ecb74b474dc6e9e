import { expect, it } from "vitest";
import type { Job } from "../api";
import { priorities, queueOf, secondsLeft } from "./jobs.svelte";

const job = (id: string, rank: number, group: string | null = null) =>
  ({ id, rank, created: 0, group }) as Job;

it("gives an order by priorities within their range", () => {
  const given = (...ranks: number[]) =>
    priorities(ranks.map((each) => job(String(each), each))).map(([, priority]) => priority);
  expect(given(1, 2, 3)).toEqual([2, 1, 0]);
  expect(given(3, 1, 2)).toEqual([2, 1, 0]);
  const late = Array.from({ length: 40 }, (_, index) => index);
  late.splice(20, 0, ...late.splice(30, 1));
  expect(given(...late)).toEqual(late.map((_, index) => (index <= 20 ? 1 : 0)));
  expect(Math.max(...given(...late.toReversed()))).toBe(10);
});

it("has the jobs of a grid as one row of the queue, where its first one stands", () => {
  const waiting = [job("a", 1), job("b", 2, "grid"), job("c", 3), job("d", 4, "grid")];
  const found = queueOf(waiting).map(({ id, grid, jobs }) => [
    id,
    grid,
    jobs.map((each) => each.id).join(""),
  ]);
  expect(found).toEqual([
    ["a", false, "a"],
    ["grid", true, "bd"],
    ["c", false, "c"],
  ]);
});

it("reckons the time left from the evaluations seen", () => {
  const drawing = { number: 0, done: 6, total: 20, since: 1000, from: 2, layers: {} };
  expect(secondsLeft(drawing, 3000)).toBe(7);
  expect(secondsLeft({ ...drawing, done: 2 }, 3000)).toBeNull();
});
