import { expect, it } from "vitest";
import { fitted, held, pinched, toPicture, zoomed } from "./view";

const SQUARE = { width: 256, height: 256 };

it("fits a picture into the middle of the room", () => {
  expect(fitted(SQUARE, { width: 544, height: 800 })).toEqual({ scale: 2, x: 16, y: 144 });
});

it("keeps the point under the pointer when it zooms", () => {
  const view = { scale: 2, x: 10, y: -30 };
  const at = { x: 90, y: 50 };
  expect(toPicture(zoomed(view, at, 3), at)).toEqual(toPicture(view, at));
  expect(zoomed(view, at, 1e6).scale).toBe(40);
});

it("zooms and moves with two fingers", () => {
  const view = { scale: 1, x: 0, y: 0 };
  const after = pinched(
    view,
    [
      { x: 0, y: 0 },
      { x: 10, y: 0 },
    ],
    [
      { x: 20, y: 5 },
      { x: 40, y: 5 },
    ],
  );
  expect(after).toEqual({ scale: 2, x: 20, y: 5 });
});

it("never loses the picture", () => {
  const room = { width: 400, height: 400 };
  expect(held({ scale: 1, x: 5000, y: -5000 }, SQUARE, room)).toEqual({ scale: 1, x: 352, y: -208 });
});
