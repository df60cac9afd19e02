// A headless Chromium, and pages that are watched: whatever a page does that it must not do is a failure of the test.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

import { check } from "./harness.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Starts the browser; CHROMIUM names another than Debian's. */
export function launch(more = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", ...more],
  });
}

/** Pages of one test, and what they did wrong. */
export class Pages {
  #contexts = [];
  #wrongs = [];
  #allowed = [];

  constructor(browser) {
    this.browser = browser;
  }

  /** What a test provokes is no failure: browsers log every answer that is an error. */
  allow(pattern) {
    this.#allowed.push(pattern);
  }

  /** Opens an address in a browser that knows nothing yet. */
  async open(url, { theme = "light", size = [1280, 720], touch = false, settings = {} } = {}) {
    const context = await this.browser.newContext({
      viewport: { width: size[0], height: size[1] }, colorScheme: theme, hasTouch: touch, acceptDownloads: true, ...settings,
    });
    this.#contexts.push(context);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    this.#watch(page, new URL(url).origin);
    await page.addInitScript(watchFromWithin);
    await page.goto(url);
    return page;
  }

  #watch(page, origin) {
    const wrong = (text) => this.#wrongs.push(text);
    page.on("console", (message) => {
      const text = message.text();
      if (!["error", "warning"].includes(message.type()) || this.#allowed.some((pattern) => pattern.test(text))) return;
      wrong(`the console has: ${text.slice(0, 500)}`);
    });
    page.on("pageerror", (error) => wrong(`a script failed: ${error.message.slice(0, 500)}`));
    page.on("dialog", (dialog) => { wrong(`a dialog opened: ${dialog.message().slice(0, 200)}`); dialog.dismiss(); });
    page.on("popup", () => wrong("a window opened"));
    page.on("request", (request) => {
      const url = request.url();
      const isOwn = origin === "null" ? url.startsWith("file:") : url.startsWith(`${origin}/`);
      if (!isOwn && !/^(blob|data):/.test(url)) wrong(`it asked another host: ${url.slice(0, 200)}`);
    });
  }

  /** Ends the pages, and fails if one did what it must not. */
  async close() {
    for (const context of this.#contexts) {
      for (const page of context.pages()) {
        const violations = await page.evaluate(() => window.probeTest?.violations ?? []).catch(() => []);
        for (const violation of violations) this.#wrongs.push(`the policy was violated: ${violation}`);
      }
    }
    await this.abandon();
    check(this.#wrongs.length === 0, () => [...new Set(this.#wrongs)].slice(0, 12).join("\n"));
  }

  /** Keeps what is seen when a test failed, in a folder. */
  async photograph(folder, name) {
    let count = 0;
    for (const context of this.#contexts) {
      for (const page of context.pages()) await page.screenshot({ path: `${folder}/${name}-${count++}.png` }).catch(() => undefined);
    }
  }

  async abandon() {
    await Promise.all(this.#contexts.map((context) => context.close().catch(() => undefined)));
    this.#contexts = [];
  }
}

/** Runs in the page before anything else. */
function watchFromWithin() {
  const seen = { violations: [], shift: 0 };
  Object.defineProperty(window, "probeTest", { value: seen });
  document.addEventListener("securitypolicyviolation", (event) =>
    seen.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) seen.shift += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
}

/** After what was asked for has been painted. */
export function painted(page) {
  return page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)))));
}

/** Everything that axe finds and calls serious or critical. */
export async function accessibility(page) {
  // Not as a script of the page, which its policy would refuse.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { preload: false, resultTypes: ["violations"] }));
  return violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id, impact, help, nodes }) =>
    `${impact} ${id}: ${help}: ${nodes.slice(0, 4).map(({ html, any }) => `${html.slice(0, 160)} (${(any[0]?.message ?? "").slice(0, 160)})`).join(" | ")}`);
}

/** What stands out at the side: the page must never have to be scrolled sideways. */
export function tooWide(page) {
  return page.evaluate(() => {
    const root = document.documentElement;
    const wrongs = [];
    if (root.scrollWidth > root.clientWidth) wrongs.push(`the page is ${root.scrollWidth} wide in ${root.clientWidth}`);
    const isHeld = (element) => {
      for (let at = element.parentElement; at && at !== document.body; at = at.parentElement) {
        if (getComputedStyle(at).overflowX !== "visible" || getComputedStyle(at).position === "fixed") return true;
      }
      return false;
    };
    for (const element of document.body.querySelectorAll("*")) {
      const box = element.getBoundingClientRect();
      if (box.width === 0 || box.height === 0 || box.right <= root.clientWidth + 1 || isHeld(element)) continue;
      if (getComputedStyle(element).position === "fixed" || getComputedStyle(element).clipPath !== "none") continue;
      wrongs.push(`${element.tagName.toLowerCase()}.${element.className} ends at ${Math.round(box.right)}`);
    }
    return wrongs.slice(0, 5);
  });
}
