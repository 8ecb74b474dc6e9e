import { expect, it } from "vitest";
import { RATIOS, sizeAdvice, sizeOf } from "./sizes";

const native = { width: 512, height: 512 };

it("keeps the area and the model's factor", () => {
  for (const ratio of RATIOS) {
    const { width, height } = sizeOf(ratio, native, 8);
    expect(width % 8 || height % 8).toBe(0);
    expect(Math.abs(width * height - 512 * 512) / (512 * 512)).toBeLessThan(0.03);
    expect(sizeAdvice(width, height, native)).toBeNull();
  }
});

it("warns beyond the native size and 2:1", () => {
  expect(sizeAdvice(1024, 1024, native)).toBe("advice.large");
  expect(sizeAdvice(768, 256, native)).toBe("advice.long");
});
