/// <reference types="vitest/config" />
import { fileURLToPath, URL } from 'node:url'

import vue from '@vitejs/plugin-vue'
import { defineConfig, type UserConfig } from 'vite'

// Where `npm run dev` finds the API.
const daemon = process.env['PROBE_URL'] ?? 'http://127.0.0.1:7117'

// `--mode export`: the script of exported pages, alone in a file, to be put into their HTML.
const exported: UserConfig = {
  build: {
    target: ['chrome111', 'firefox128', 'safari16.4'],
    lib: { entry: 'src/export/page.ts', formats: ['iife'], name: 'page', fileName: () => 'export.js' },
    emptyOutDir: false,
    reportCompressedSize: false,
  },
}

const application: UserConfig = {
  plugins: [vue()],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  define: { __VUE_OPTIONS_API__: false },
  build: {
    target: ['chrome111', 'firefox128', 'safari16.4'],
    // The server's policy allows no inline script or style and no `data:` but for images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1024,
    rolldownOptions: { output: { hashCharacters: 'hex' } },
  },
  worker: { format: 'es', rolldownOptions: { output: { hashCharacters: 'hex' } } },
  // The host of a request has to be that of its page.
  server: { proxy: { '/api': { target: daemon, changeOrigin: false } } },
  test: { environment: 'jsdom', include: ['src/**/*.test.ts'] },
}

export default defineConfig(({ mode }) => mode === 'export' ? exported : application)
