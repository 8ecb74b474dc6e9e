import { fileURLToPath } from "node:url";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

const alias = Object.fromEntries(
  ["lib", "components"].map((name) => [`$${name}`, fileURLToPath(new URL(`src/${name}`, import.meta.url))]),
);

export default defineConfig({
  plugins: [svelte()],
  resolve: { alias },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
