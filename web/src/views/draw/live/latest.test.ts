import { beforeEach, expect, it, vi } from "vitest";
import { Latest } from "./latest";

const settle = () => vi.advanceTimersByTimeAsync(0);

/** A task of so many milliseconds that notes what it began, ended and gave up. */
function timed(milliseconds: number) {
  const log = { began: [] as number[], ended: [] as number[], most: 0 };
  let running = 0;
  const latest = new Latest<number>(async ({ value, signal }) => {
    log.began.push(value);
    log.most = Math.max(log.most, ++running);
    const came = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(true), milliseconds);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve(false);
      });
    });
    running--;
    if (came) log.ended.push(value);
    return came;
  }, Date.now);
  return { latest, log };
}

beforeEach(() => {
  vi.useFakeTimers();
});

it("does one at a time, and the latest value last", async () => {
  const { latest, log } = timed(100);
  for (let value = 0; value < 200; value++) {
    latest.want(value);
    await vi.advanceTimersByTimeAsync(5);
  }
  await vi.advanceTimersByTimeAsync(1000);
  expect(log.most).toBe(1);
  expect(log.ended.at(-1)).toBe(199);
  // a result about every 100 ms of the second, not one for each value and not only the last
  expect(log.ended.length).toBeGreaterThan(6);
  expect(log.ended.length).toBeLessThan(14);
});

it("gives up what would take long, yet results come while values follow each other", async () => {
  const { latest, log } = timed(2000);
  latest.want(0);
  await vi.advanceTimersByTimeAsync(2500);
  latest.want(1);
  await vi.advanceTimersByTimeAsync(100);
  latest.want(2);
  await settle();
  expect(log.began).toEqual([0, 1, 2]);
  expect(log.ended).toEqual([0]);
  for (let value = 3; value < 200; value++) {
    latest.want(value);
    await vi.advanceTimersByTimeAsync(100);
  }
  expect(log.ended.length).toBeGreaterThan(3);
});

it("gives up few, however quickly values come, and does the last", async () => {
  const { latest, log } = timed(1000);
  latest.want(0);
  await vi.advanceTimersByTimeAsync(1500);
  for (let value = 1; value <= 300; value++) {
    latest.want(value);
    await vi.advanceTimersByTimeAsync(10);
  }
  await vi.advanceTimersByTimeAsync(2500);
  expect(log.began.length).toBeLessThan(10);
  expect(log.ended.at(-1)).toBe(300);
});

it("keeps the latest value while it is paused", async () => {
  const { latest, log } = timed(100);
  latest.pause();
  latest.want(1);
  latest.want(2);
  await vi.advanceTimersByTimeAsync(500);
  expect(log.began).toEqual([]);
  latest.resume();
  await vi.advanceTimersByTimeAsync(500);
  expect(log.ended).toEqual([2]);
});

it("forgets what is cleared", async () => {
  const { latest, log } = timed(100);
  latest.want(1);
  latest.want(2);
  latest.clear();
  await vi.advanceTimersByTimeAsync(500);
  expect(log.ended).toEqual([]);
  expect(log.began).toEqual([1]);
});
