// Each way to look at a profile.

import { painted } from "../lib/browser.mjs";
import { CANVAS, drawn, inAddress, picture, pointAt, share, tip, view, zoomed } from "../lib/chart.mjs";
import { check, until } from "../lib/harness.mjs";

export const needs = ["daemon", "breach"];

async function profile({ link, open }, query = "") {
  const page = await open(link + query);
  await drawn(page);
  return page;
}

/** Cells of a column of a table of functions, as numbers. */
function column(page, at) {
  return page.$$eval(`.top tbody tr td:nth-of-type(${at})`, (cells) =>
    cells.map((cell) => Number(/([\d.]+)%/.exec(cell.textContent)?.[1])));
}

const names = (page) => page.$$eval(".top tbody .name", (buttons) => buttons.map((button) => button.textContent.trim()));

export const tests = {
  async "views::the_flamegraph_stands_on_either_end"(scene) {
    const page = await profile(scene);
    const icicle = await picture(page);
    check(icicle.colors > 6, `the canvas has ${icicle.colors} colours: nothing was painted`);
    const before = await pointAt(page, "match_rules");
    const said = await tip(page);
    check(/hotcold\.c:\d+/.test(said) && /%/.test(said), `the tip says ${said}`);
    await page.getByRole("button", { name: "Flame", exact: true }).click();
    await inAddress(page, "flame", "1");
    await painted(page);
    check((await picture(page)).sum !== icicle.sum, "turned over, the picture is the same");
    const after = await pointAt(page, "match_rules");
    check(after.y > before.y, `turned over, the frame is at ${after.y} instead of below ${before.y}`);
  },

  async "views::callers_first_begins_with_the_running_function"(scene) {
    const page = await profile(scene, "?invert=1");
    const { y } = await pointAt(page, "match_rules");
    const box = await page.locator(CANVAS).boundingBox();
    check(y - box.y < 45, `what runs is ${y - box.y} px below the root`);
  },

  async "views::the_diff_shows_what_came_and_what_went"(scene) {
    const page = await profile(scene);
    await view(page, "Diff");
    const against = page.locator(".bar label", { hasText: "against" }).locator("select");
    check(await against.inputValue() === "baseline", `it is compared with ${await against.inputValue()}`);
    await pointAt(page, "match_rules");
    const said = await tip(page);
    check(/[+]\d+(\.\d+)? pp/.test(said), `the culprit's change reads ${said}`);
    const relative = await picture(page);
    await page.getByRole("button", { name: "Absolute", exact: true }).click();
    await inAddress(page, "absolute", "1");
    await until("the picture changes", async () => (await picture(page)).sum !== relative.sum);
    await against.selectOption("before");
    await inAddress(page, "against", "before");
    await drawn(page);
    await view(page, "Top");
  },

  async "views::the_sandwich_has_callers_and_callees"(scene) {
    const page = await profile(scene, "?view=sandwich&func=match_rules");
    const callers = page.getByRole("region", { name: "Callers" });
    await callers.locator("canvas").waitFor();
    await pointAt(page, "matcher", '#profile-panel section[aria-label="Callers"] canvas');
    const heading = await page.locator(".sandwich .function").innerText();
    check(/match_rules/.test(heading) && /total\s+[\d.]+%/.test(heading), `the heading is ${heading}`);
    await page.getByRole("button", { name: "Another function" }).click();
    await page.locator(".top tbody .name", { hasText: /^calm_work$/ }).click();
    await inAddress(page, "func", "calm_work");
  },

  async "views::the_table_is_sorted_as_asked"(scene) {
    const page = await profile(scene, "?view=top");
    await page.locator(".top tbody tr").first().waitFor();
    check((await names(page))[0] === "match_rules", `first is ${(await names(page))[0]}`);
    check(/culprit/.test(await page.locator(".top tbody tr").first().innerText()), "the culprit is not marked");
    const isFalling = (list) => list.every((value, at) => at === 0 || list[at - 1] >= value);
    check(isFalling(await column(page, 1)), "by self: not sorted");
    await page.locator(".top thead button", { hasText: "Total" }).click();
    await inAddress(page, "sort", "total");
    await painted(page);
    check(isFalling(await column(page, 2)), "by total: not sorted");
    await page.locator(".top thead button", { hasText: "Total" }).click();
    await inAddress(page, "sort", "-total");
    await painted(page);
    check(isFalling((await column(page, 2)).reverse()), "by total, the least first: not sorted");
    await page.locator(".top thead button", { hasText: "Function" }).click();
    await inAddress(page, "sort", "name");
    await painted(page);
    const sorted = await names(page);
    check(sorted.every((name, at) => at === 0 || sorted[at - 1] <= name), "by name: not sorted");
    check(await page.locator(".top th[aria-sort=ascending]").count() === 1, "how it is sorted is not said");
  },

  async "views::the_tree_is_a_table_of_the_same"(scene) {
    const page = await profile(scene, "?view=tree");
    const row = page.getByRole("row", { name: /match_rules/ }).first();
    await row.waitFor();
    check(Number(/([\d.]+)%/.exec(await row.innerText())[1]) > 60, `the culprit's row reads ${await row.innerText()}`);
    await row.click();
    await page.keyboard.press("Enter");
    await inAddress(page, "view", null);
    await drawn(page);
    check(await zoomed(page) === "match_rules", `zoomed into ${await zoomed(page)}`);
  },

  async "views::the_dump_groups_threads_by_stack"(scene) {
    const page = await profile(scene);
    await view(page, "Threads");
    const dump = page.getByRole("region", { name: "Threads by stack" });
    await dump.locator(".group").first().waitFor();
    const text = await dump.innerText();
    check(/3 threads in \d places?/.test(text), `the dump says ${text.slice(0, 200)}`);
    check(/match_rules/.test(text) && /matcher/.test(text) && /poller/.test(text), `the dump lacks a thread: ${text.slice(0, 800)}`);
  },

  async "views::a_stretch_of_time_becomes_the_flamegraph"(scene) {
    const page = await profile(scene, "?window=before");
    await view(page, "Time");
    const map = page.locator(".heat canvas");
    await map.evaluate((canvas) => canvas.scrollIntoView({ block: "center" }));
    const box = await map.boundingBox();
    const weight = async () => Number(await page.$eval("#profile-panel .host canvas", (canvas) => canvas.dataset.nodes));
    const all = await weight();
    check(all > 3, "there is no flamegraph below");
    // The first second, of four: calm.
    const wide = Math.min(box.width / 4, 48);
    await page.mouse.move(box.x + 3, box.y + box.height - 3);
    await page.mouse.down();
    await page.mouse.move(box.x + wide / 2, box.y + 3, { steps: 4 });
    await page.mouse.up();
    await inAddress(page, "from", "0");
    const to = Number(new URL(page.url()).searchParams.get("to"));
    check(to > 100 && to <= 1000, `chosen is up to ${to} ms`);
    await drawn(page);
    check(/0 µs to [\d.]+ m?s/.test(await page.locator(".heat").innerText()), "what is chosen is not said");
    await view(page, "Flamegraph");
    check(await page.locator(".chip").count() === 1, "the flamegraph does not say that it is a part of the time");
    await page.getByRole("button", { name: "Show all of the time" }).click();
    await inAddress(page, "from", null);
  },

  async "views::one_thread_and_all_of_them"(scene) {
    const page = await profile(scene);
    const threads = page.locator(".bar label", { hasText: "Threads" }).locator("select");
    const choices = await threads.locator("option").evaluateAll((options) => options.map(({ value, textContent }) => [value, textContent]));
    const poller = choices.find(([, text]) => text.includes("poller"));
    check(choices[0][1].includes("merged") && poller, `the threads are ${choices.map(([, text]) => text)}`);
    const merged = await picture(page);
    await threads.selectOption(poller[0]);
    await inAddress(page, "thread", poller[0]);
    await until("another picture", async () => (await picture(page)).sum !== merged.sum);
    await threads.selectOption("");
    await until("the picture of all again", async () => (await picture(page)).sum === merged.sum);
  },

  async "views::the_latency_of_a_slow_function"({ daemon, open }) {
    const page = await open(await daemon.link("push-slow"));
    await page.getByTestId("culprit").or(page.locator("h1")).first().waitFor();
    await page.getByRole("tab", { name: "Latency" }).click();
    const text = await page.locator(".latency").innerText();
    check(/sends/.test(text) && /threshold 10\.0 ms/.test(text), `the histogram says ${text.slice(0, 300)}`);
    check(await page.locator(".latency .bar.slow").count() > 0, "no step is beyond the threshold");
    const rows = await page.locator(".latency tbody tr").count();
    check(rows >= 2, `the table has ${rows} steps: calls take 2 ms and 20 ms`);
  },
};
