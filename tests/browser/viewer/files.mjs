// `probe view FILE`: the same viewer on a file. The file is one that an attacker would make; what is in it is text.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { accessibility, painted, tooWide } from "../lib/browser.mjs";
import { CANVAS, drawn, inAddress, picture, search, view } from "../lib/chart.mjs";
import { check, until } from "../lib/harness.mjs";
import { hostileProfile, NAMES } from "../lib/hostile.mjs";
import { end, firstLine, start } from "../lib/processes.mjs";

export const needs = [];

/** Serves a file while `use` uses it. */
async function viewing(probe, name, content, use) {
  const folder = mkdtempSync(join(tmpdir(), "probe-view-"));
  const file = join(folder, name);
  writeFileSync(file, content);
  const server = start(probe, ["view", file], { seconds: 120 });
  try {
    await use(await firstLine(server), folder);
  } finally {
    await end(server);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Nothing of a name became more than text, and nothing of it hides or turns what stands beside it. */
async function harmless(page, where) {
  const found = await page.evaluate(() => {
    const own = new Set(["/view"]);
    const foreign = [...document.querySelectorAll("iframe, object, embed, base, script:not([src]), style:not([data-vite])")].map(({ outerHTML }) => outerHTML.slice(0, 120));
    foreign.push(...[...document.images].filter(({ src }) => !new URL(src).pathname.startsWith("/assets/")).map(({ src }) => src));
    foreign.push(...[...document.querySelectorAll("*")].filter((one) => [...one.attributes].some(({ name }) => /^on/i.test(name))).map(({ outerHTML }) => outerHTML.slice(0, 120)));
    return { owned: window.isOwned === 1, foreign, text: document.body.innerText, title: document.title, path: own.has(location.pathname) };
  });
  check(!found.owned, `${where}: a name was executed`);
  check(found.foreign.length === 0, `${where}: a name became markup: ${found.foreign}`);
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c]/.exec(found.text + found.title);
  check(!hidden, () => `${where}: U+${hidden[0].charCodeAt(0).toString(16)} stands in ${JSON.stringify(found.text.slice(Math.max(0, hidden.index - 40), hidden.index + 20))}`);
  check(found.text.length < 60_000, `${where}: the page has ${found.text.length} letters`);
  const wide = await tooWide(page);
  check(wide.length === 0, `${where}: ${wide.join("; ")}`);
}

export const tests = {
  async "files::hostile_names_are_text_in_every_view"({ probe, open }) {
    await viewing(probe, `profile ${NAMES.turned.slice(0, 12)}<b>.json`, JSON.stringify(hostileProfile()), async (url) => {
      for (const size of [[1280, 720], [390, 844]]) {
        const page = await open(url, { size });
        await drawn(page);
        await harmless(page, `flamegraph ${size[0]}`);
        const box = await page.locator(CANVAS).boundingBox();
        for (let y = 10; y < box.height; y += 19) {
          for (const share of [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95]) await page.mouse.move(box.x + box.width * share, box.y + y);
          await painted(page);
          const tip = await page.locator(".chart-tip:not([hidden])").boundingBox().catch(() => null);
          if (!tip && y > 200) break;
          if (tip) check(tip.x >= 0 && tip.x + tip.width <= size[0] && tip.height < size[1], `the tip is at ${JSON.stringify(tip)}`);
        }
        await harmless(page, `tips ${size[0]}`);
        for (const name of ["Top", "Tree", "Sandwich", "Time"]) {
          await view(page, name);
          await harmless(page, `${name} ${size[0]}`);
        }
      }
    });
  },

  async "files::hostile_names_are_found_copied_and_linked_as_they_are"({ probe, open }) {
    await viewing(probe, "profile.json", JSON.stringify(hostileProfile()), async (url) => {
      const page = await open(url);
      await drawn(page);
      check(/%/.test(await search(page, "<img src=x onerror")), "markup is not found");
      check(/%/.test(await search(page, "^megabyte_x+")), "the long name is not found");
      const slow = search(page, "^(x+x+)+y$").catch((error) => error.message);
      await until("a risky expression does not stop the page", () => page.evaluate(() => true), 5_000);
      await slow;
      await page.getByRole("searchbox").fill("");
      await inAddress(page, "q", null);
      await view(page, "Top");
      await page.locator(".top tbody .name", { hasText: "<img src=x" }).first().click();
      await inAddress(page, "func", /<img/);
      const other = await open(page.url());
      await drawn(other);
      check((await other.locator(".sandwich .name").first().innerText()).includes("<img src=x"), "the link does not show the same function");
      await harmless(other, "sandwich of markup");
    });
  },

  async "files::an_exported_page_needs_no_server"({ probe, open }) {
    await viewing(probe, "profile.json", JSON.stringify(hostileProfile()), async (url, folder) => {
      const response = await fetch(new URL("/profile.html", url));
      check(response.ok, `the page is answered by ${response.status}`);
      const file = join(folder, "exported.html");
      writeFileSync(file, Buffer.from(await response.arrayBuffer()));
      const page = await open(pathToFileURL(file).href);
      await page.locator("canvas").first().waitFor();
      await until("it is painted", async () => (await picture(page, "canvas")).colors > 4);
      check(await page.evaluate(() => window.isOwned !== 1 && document.images.length === 0), "a name became markup");
    });
  },

  async "files::folded_stacks_open_with_downloads_and_for_everyone"({ probe, open }) {
    const folded = Array.from({ length: 40 }, (_, at) => `app;main;loop_${at % 4};work_${at} ${at + 1}`).join("\n");
    await viewing(probe, "stacks.folded", folded, async (url) => {
      for (const theme of ["light", "dark"]) {
        const page = await open(url, { theme });
        await drawn(page);
        check((await page.locator("h1").innerText()).includes("stacks.folded"), "the page does not name the file");
        const wrongs = await accessibility(page);
        check(wrongs.length === 0, () => wrongs.join("\n"));
        check(await page.getByRole("navigation").getByRole("link").count() === 0, "there are links to pages that a file has not");
        await page.locator(".menu summary").click();
        for (const link of await page.locator(".menu a").evaluateAll((all) => all.map(({ href }) => href))) {
          const response = await page.request.get(link);
          check(response.ok(), `${link}: ${response.status()}`);
        }
      }
    });
  },

  async "files::a_profile_without_samples_says_so"({ probe, open }) {
    const { profile, ...rest } = hostileProfile();
    const empty = { ...rest, profile: { ...profile, samples: [] } };
    await viewing(probe, "empty.json", JSON.stringify(empty), async (url) => {
      const page = await open(url);
      await until("it says that there is nothing", async () => /No samples/i.test(await page.locator("main").innerText()));
    });
  },
};
