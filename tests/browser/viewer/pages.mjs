// What holds for every page: anyone can use it, nothing has to be scrolled sideways, and nothing jumps while it loads.

import { accessibility, painted, tooWide } from "../lib/browser.mjs";
import { drawn } from "../lib/chart.mjs";
import { check } from "../lib/harness.mjs";

export const needs = ["daemon", "breach"];

/** Each page: where it is, and what stands there when it is complete. */
const PAGES = {
  targets: ["/", "[data-testid=target]"],
  target: ["/targets/checkout", "[data-testid=threads] tbody tr"],
  snapshots: ["/snapshots", "[data-testid=snapshot]"],
  no_snapshots: ["/snapshots?rule=none", "main button"],
  alerts: ["/alerts", "[data-testid=firing] li"],
  rules: ["/rules", "[data-testid=rule]"],
  functions: ["/functions", "[data-testid=function]"],
  health: ["/health", "[data-testid=health]"],
  missing: ["/nowhere", "main"],
  snapshot: ["", "#profile-panel canvas"],
  diff: ["?view=diff", "#profile-panel canvas"],
  sandwich: ["?view=sandwich&func=match_rules", "#profile-panel canvas"],
  top: ["?view=top", ".top tbody tr"],
  tree: ["?view=tree", ".tree .row"],
  dump: ["?view=dump", ".dump .group"],
  time: ["?view=heat&window=before", ".heat canvas"],
};
/** The narrow phone, the small laptop and the wide screen. */
const SIZES = [[390, 844], [1280, 720], [1920, 1080]];
/** By how much a page may move while it is loading, as a share of the screen (https://web.dev/articles/cls). */
const LARGEST_SHIFT = 0.05;
const moved = (page) => page.evaluate(() => window.probeTest.shift);

async function reach({ daemon, link, open }, name, how) {
  const [path, complete] = PAGES[name];
  const page = await open((path.startsWith("/") ? daemon.url : link) + path, how);
  await page.locator(complete).first().waitFor();
  if (await page.locator("#profile-panel").count()) await drawn(page);
  await painted(page);
  return page;
}

export const tests = {};
for (const name of Object.keys(PAGES)) {
  tests[`pages::${name}_is_for_everyone_at_any_size`] = async (scene) => {
    if (name === "missing") scene.pages.allow(/status of 404/);
    const wrongs = [];
    for (const [theme, size] of [["light", SIZES[1]], ["dark", SIZES[0]], ["light", SIZES[2]]]) {
      const page = await reach(scene, name, { theme, size });
      const at = `${theme}, ${size[0]} px`;
      for (const wrong of await accessibility(page)) wrongs.push(`${at}: ${wrong}`);
      for (const wrong of await tooWide(page)) wrongs.push(`${at}: ${wrong}`);
      let shift = await moved(page);
      await page.context().close();
      // What happens just then (a rule that begins to fire) moves a page too, but not each time.
      for (let again = 0; shift > LARGEST_SHIFT && again < 2; again++) {
        const another = await reach(scene, name, { theme, size });
        shift = Math.min(shift, await moved(another));
        await another.context().close();
      }
      if (shift > LARGEST_SHIFT) wrongs.push(`${at}: what is shown moves by ${shift.toFixed(3)} while the page is loading`);
    }
    check(wrongs.length === 0, () => wrongs.join("\n"));
  };
}

tests["pages::dialogs_are_for_everyone"] = async ({ daemon, link, open }) => {
  const wrongs = [];
  for (const theme of ["light", "dark"]) {
    const page = await open(link, { theme });
    await drawn(page);
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    wrongs.push(...await accessibility(page));
    const rules = await open(`${daemon.url}/rules`, { theme, size: SIZES[0] });
    await rules.getByTestId("add").click();
    await rules.getByRole("button", { name: "Add", exact: true }).click();
    wrongs.push(...await accessibility(rules), ...await tooWide(rules));
  }
  check(wrongs.length === 0, () => wrongs.join("\n"));
};

tests["pages::the_theme_is_kept"] = async ({ daemon, open }) => {
  const page = await open(`${daemon.url}/`);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  const toggle = page.getByTestId("theme");
  for (let presses = 0; presses < 3 && await ground() === light; presses++) await toggle.click();
  const dark = await ground();
  check(dark !== light, "the theme cannot be chosen");
  await page.reload();
  await page.getByTestId("target").first().waitFor();
  check(await ground() === dark, "after a reload the theme is another one");
};

tests["pages::a_phone_has_all_pages_behind_one_button"] = async ({ daemon, open }) => {
  const page = await open(`${daemon.url}/rules`, { size: SIZES[0], touch: true });
  await page.locator("[data-testid=rule]").first().waitFor();
  const links = page.getByRole("navigation", { name: "Pages" }).getByRole("link");
  check(!await links.first().isVisible(), "the pages are shown before they are asked for");
  const button = page.getByRole("button", { name: "Rules" });
  await button.click();
  const size = SIZES[0][0];
  for (const link of await links.all()) {
    const box = await link.boundingBox();
    check(box && box.x >= 0 && box.x + box.width <= size && box.height >= 40, `${await link.innerText()} is cut or too small for a finger`);
  }
  await page.keyboard.press("Escape");
  check(!await links.first().isVisible() && await button.evaluate((one) => one === document.activeElement), "Escape does not close it");
  await button.click();
  await links.filter({ hasText: "Health" }).click();
  await page.getByTestId("health").waitFor();
  check(!await links.first().isVisible(), "the pages are still open on the next page");
};

tests["pages::what_fires_stands_in_one_list"] = async ({ daemon, open }) => {
  const page = await open(`${daemon.url}/alerts`);
  await page.getByTestId("firing").locator("li").first().waitFor();
  // Any state of the rules but one would do: what recovers fires still.
  const { rules } = await (await daemon.get("/api/v1/rules")).json();
  const waiting = rules.flatMap(({ processes }) => processes.filter(({ state }) => state === "pending")).length;
  check(await page.getByTestId("pending").locator("li").count() <= waiting, "what fires or recovers is in the list of what will");
  // The same with what this breach may not have: a rule that recovers.
  await page.route("**/api/v1/rules", async (route) => {
    const answer = await route.fetch();
    const body = await answer.json();
    for (const { processes } of body.rules) for (const process of processes) process.state = "recovering";
    await route.fulfill({ response: answer, json: body });
  });
  await page.reload();
  await page.getByTestId("firing").locator("li", { hasText: "recovering" }).first().waitFor();
  check(await page.getByTestId("pending").count() === 0, "what recovers is listed twice");
};
