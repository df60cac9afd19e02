// The viewer, used as a person would use it: from the alert's link to the culprit, every view, the live pages, and files.
//
//     npm ci && node viewer.mjs [--probe target/release/probe] [FILTER]
//
// What needs a daemon needs root. CHROMIUM names another browser than /usr/bin/chromium; PROBE_TEST_TIMES=1 says how long
// each test took, PROBE_TEST_PICTURES=FOLDER keeps pictures of what failed.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { launch, Pages } from "./lib/browser.mjs";
import { Daemon } from "./lib/daemon.mjs";
import { run, Skip } from "./lib/harness.mjs";
import * as downloads from "./viewer/downloads.mjs";
import * as files from "./viewer/files.mjs";
import * as keys from "./viewer/keys.mjs";
import * as live from "./viewer/live.mjs";
import * as pages from "./viewer/pages.mjs";
import * as snapshot from "./viewer/snapshot.mjs";
import * as views from "./viewer/views.mjs";

const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { probe: { type: "string" } } });
const here = dirname(fileURLToPath(import.meta.url));
const probe = options.probe ?? process.env.PROBE_BIN ?? join(here, "../../target/release/probe");

/** What tests share, each made when the first test needs it. */
const stage = { probe };
const scenes = {
  async browser() {
    const browser = process.env.CHROMIUM || "/usr/bin/chromium";
    if (!existsSync(browser)) throw new Skip(`${browser} is not installed`);
    if (!existsSync(probe)) throw new Skip(`${probe} is not built`);
    stage.browser = await launch();
  },
  async daemon() {
    stage.daemon = await Daemon.start(probe);
  },
  /** The link in the alert of the service that turned hot. */
  async breach() {
    stage.link = await stage.daemon.link("checkout-cpu");
  },
};
const ready = new Map();
function prepare(name) {
  const known = ready.get(name);
  if (known) return known;
  const made = scenes[name]();
  // Said once at length, and then shortly.
  ready.set(name, made);
  made.catch((error) => {
    const again = error instanceof Skip ? error : new Error(`there is no ${name}, as said above`);
    ready.set(name, { then: (_, refuse) => refuse(again) });
  });
  return made;
}

/** How often there may be another daemon because a test failed twice: what fails for other reasons is to fail soon. */
const RENEWALS = 2;
let renewals = 0;
async function renew(needs) {
  if (!needs.includes("daemon") || renewals++ >= RENEWALS) return;
  await stage.daemon?.end();
  stage.daemon = undefined;
  for (const name of ["daemon", "breach"]) ready.delete(name);
}

const tests = [files, snapshot, views, keys, downloads, live, pages].flatMap(({ needs, tests }) =>
  Object.entries(tests).map(([name, test]) => ({ name: `viewer::${name}`, test, needs: ["browser", ...needs] })));

const filter = positionals[0] ?? "";
// It has to be calm for a while, and other tests need it not.
if (tests.some(({ name, needs }) => name.includes(filter) && needs.includes("daemon"))) prepare("daemon").catch(() => undefined);

let good = false;
try {
  good = await run(tests, {
    filter,
    prepare,
    renew,
    async each(test) {
      const open = new Pages(stage.browser);
      try {
        await test({ ...stage, pages: open, open: (url, how) => open.open(url, how) });
        await open.close();
      } catch (error) {
        if (process.env.PROBE_TEST_PICTURES) await open.photograph(process.env.PROBE_TEST_PICTURES, test.name.replaceAll(/\W+/g, "-"));
        throw error;
      } finally {
        await open.abandon();
      }
    },
  });
} finally {
  await stage.browser?.close();
  await stage.daemon?.end();
}
process.exit(good ? 0 : 1);
