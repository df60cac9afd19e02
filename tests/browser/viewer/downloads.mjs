// What can be taken away: every format, with its type, and by the page's own menus.

import { gunzipSync } from "node:zlib";

import { drawn } from "../lib/chart.mjs";
import { check } from "../lib/harness.mjs";

export const needs = ["daemon", "breach"];

/** The type that is sent, and what shows that it is what it says. */
const FORMATS = {
  pprof: [/^application\/octet-stream|^application\/vnd\.google\.protobuf|^application\/gzip|^application\/x-gzip/, (bytes) => gunzipSync(bytes).includes("match_rules")],
  folded: [/^text\/plain/, (bytes) => /;match_rules \d+$/m.test(bytes)],
  svg: [/^image\/svg\+xml/, (bytes) => /<svg/.test(bytes) && /match_rules/.test(bytes)],
  speedscope: [/^application\/json/, (bytes) => JSON.parse(bytes).shared.frames.some(({ name }) => name === "match_rules")],
  firefox: [/^application\/json/, (bytes) => JSON.parse(bytes).threads.length > 0 && bytes.includes("match_rules")],
  html: [/^text\/html/, (bytes) => bytes.includes("match_rules")],
};

export const tests = {
  async "downloads::every_format_has_its_type_and_content"({ link, open }) {
    const page = await open(link);
    await drawn(page);
    await page.locator(".menu summary").click();
    const links = await page.locator(".menu a").evaluateAll((all) => all.map((one) => one.href));
    check(links.length === Object.keys(FORMATS).length, `the menu offers ${links.length} formats`);
    for (const [format, [type, holds]] of Object.entries(FORMATS)) {
      const address = links.find((one) => new URL(one).searchParams.get("format") === format);
      check(address, `the menu has no ${format}`);
      const response = await page.request.get(address);
      check(response.status() === 200, `${format}: ${response.status()}`);
      const sent = response.headers()["content-type"];
      check(type.test(sent), `${format} is sent as ${sent}`);
      check(response.headers()["x-content-type-options"] === "nosniff", `${format} may be taken for something else`);
      check(holds(await response.body()), `${format} does not have the culprit`);
    }
  },

  async "downloads::the_page_saves_files_with_names"({ link, open }) {
    const page = await open(link);
    await drawn(page);
    for (const [format, ending] of [["pprof", ".pb.gz"], ["SVG", ".svg"]]) {
      await page.locator(".menu summary").click();
      const link = page.locator(".menu a", { hasText: format });
      const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
      check(download.suggestedFilename().endsWith(ending), `${format} is saved as ${download.suggestedFilename()}`);
      check(await download.failure() === null, `${format} is not saved`);
      await page.locator(".menu[open] summary").click();
    }
    await page.locator(".menu summary").click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Folded, as shown" }).click()]);
    check(download.suggestedFilename().endsWith(".folded"), `what is shown is saved as ${download.suggestedFilename()}`);
  },
};
