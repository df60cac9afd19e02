// Takes the pictures of docs/images/ from a daemon with a real breach, as root: each page in light and dark, and two on a phone.
//
//     npm ci && node screenshots.mjs [--probe target/release/probe] [--out docs/images] [FILTER]
//
// docs/viewer.md shows them all.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { launch, painted, Pages } from "./lib/browser.mjs";
import { drawn } from "./lib/chart.mjs";
import { Daemon } from "./lib/daemon.mjs";
import { until } from "./lib/harness.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values: options, positionals } = parseArgs({ allowPositionals: true, options: {
  probe: { type: "string", default: process.env.PROBE_BIN ?? join(here, "../../target/release/probe") },
  out: { type: "string", default: join(here, "../../docs/images") },
} });
const WIDE = [1280, 800], PHONE = [390, 844];
/** Pictures are a part of every clone: one, and all of them. */
const MOST = 80 << 10, ALL = 3 << 20;
const QUALITY = 82;

/** Pages by the names of their pictures: where they are (what begins with ? is of the snapshot), and what is waited for. */
const PAGES = {
  "targets": ["/", sparks],
  "target": ["/targets/checkout", sparks],
  "snapshots": ["/snapshots"],
  "snapshot": ["?"],
  "diff": ["?view=diff"],
  "sandwich": ["?view=sandwich&func=match_rules"],
  "top": ["?view=top"],
  "tree": ["?view=tree"],
  "dump": ["?view=dump"],
  "heatmap": ["?view=heat"],
  "latency": ["latency"],
  "search": ["?q=%5Ematch_"],
  "keys": ["?", (page) => page.keyboard.press("?")],
  "alerts": ["/alerts"],
  "rules": ["/rules"],
  "rule-form": ["/rules", wrongRule],
  "functions": ["/functions"],
  "health": ["/health", measured],
  "empty": ["/snapshots?rule=none"],
  "error": ["/snapshots/01ARZ3NDEKTSV4RRFFQ69G5FAV"],
  "missing": ["/nowhere"],
  "phone": ["?", undefined, PHONE],
  "phone-profile": ["?", toProfile, PHONE],
};

/** Spark lines need some values. */
async function sparks(page) {
  await until("spark lines", () => page.locator(".spark .line").first().evaluate((line) => line.getAttribute("d").split("L").length > 8), 40_000);
}
async function measured(page) {
  await until("the processor time", async () => !/measuring/.test(await page.getByTestId("health").innerText()));
}
async function wrongRule(page) {
  await page.getByTestId("add").click();
  await page.getByLabel(/^Name/).fill("checkout-slow");
  await page.getByLabel(/^Metric/).selectOption("function.p99");
  await page.getByLabel("For", { exact: true }).fill("soon");
  await page.getByTestId("definition-form").getByRole("button", { name: "Add", exact: true }).click();
}
async function toProfile(page) {
  await page.locator(".profile").evaluate((profile) => window.scrollTo(0, profile.getBoundingClientRect().top + scrollY - 56));
}

mkdirSync(options.out, { recursive: true });
const browser = await launch();
const daemon = await Daemon.start(options.probe);
let all = 0;
try {
  const snapshot = await daemon.link("checkout-cpu");
  const latency = await daemon.link("push-slow");
  const pages = new Pages(browser);
  for (const [name, [path, ready, size = WIDE]] of Object.entries(PAGES)) {
    if (!name.includes(positionals[0] ?? "")) continue;
    for (const theme of ["light", "dark"]) {
      const url = path === "latency" ? `${latency}?view=latency` : path.startsWith("/") ? daemon.url + path : snapshot + path;
      const page = await pages.open(url, { theme, size, touch: size === PHONE, settings: { isMobile: size === PHONE, reducedMotion: "reduce" } });
      await page.locator("main :is(h1, h2)").first().waitFor();
      if (path.startsWith("?")) await drawn(page);
      await page.waitForLoadState("networkidle", { timeout: 2000 }).catch(() => undefined);
      await ready?.(page);
      await painted(page);
      const client = await page.context().newCDPSession(page);
      const { data } = await client.send("Page.captureScreenshot", { format: "webp", quality: QUALITY });
      const bytes = Buffer.from(data, "base64");
      const file = join(options.out, `viewer-${name}-${theme}.webp`);
      writeFileSync(file, bytes);
      all += bytes.length;
      console.log(`${file}: ${Math.ceil(bytes.length / 1024)} KiB`);
      if (bytes.length > MOST) throw new Error(`${file} is larger than ${MOST >> 10} KiB`);
      await page.context().close();
    }
  }
} finally {
  await browser.close();
  await daemon.end();
}
console.log(`${Math.ceil(all / 1024)} KiB together`);
process.exit(all > ALL ? 1 : 0);
