import { fileURLToPath } from "node:url";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

const server = process.env.SFUMATO_SERVER ?? "http://127.0.0.1:7860";

const alias = Object.fromEntries(
  ["lib", "components"].map((name) => [`$${name}`, fileURLToPath(new URL(`src/${name}`, import.meta.url))]),
);

export default defineConfig({
  plugins: [svelte()],
  resolve: { alias },
  build: {
    outDir: "../src/sfumato/server/page",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
  server: {
    proxy: Object.fromEntries(
      ["/api", "/readyz", "/healthz"].map((path) => [
        path,
        { target: server, headers: { origin: server }, changeOrigin: true },
      ]),
    ),
  },
});
