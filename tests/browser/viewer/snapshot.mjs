// The page that an alert links to: what broke, who did it, when, and in which threads.

import { CANVAS, drawn, inAddress, share } from "../lib/chart.mjs";
import { check, until } from "../lib/harness.mjs";

export const needs = ["daemon", "breach"];

export const tests = {
  async "snapshot::the_alert_links_to_the_culprit"({ link, open }) {
    const page = await open(link);
    const culprit = page.getByTestId("culprit");
    await culprit.waitFor();
    const sentence = (await culprit.innerText()).replace(/\s+/g, " ");
    check(/^match_rules hotcold\.c:\d+ went from \d+ % to \d+ % of the process, in thread matcher/.test(sentence), `the first sentence is ${sentence}`);
    // It is the first thing on the page: what stands above it is the way to it.
    const top = await culprit.evaluate((element) => element.getBoundingClientRect().top);
    check(top < 160, `the culprit stands at ${top} px`);
    const text = await page.locator("main").innerText();
    for (const said of ["checkout-cpu", "threshold", "15"]) check(text.includes(said), `the page does not say ${said}`);
    check(/checkout/.test(await page.title()), `the title is ${await page.title()}`);
    await drawn(page);
    check(await share(page, "^match_rules$") > 60, "the culprit has no large part of the profile");
  },

  async "snapshot::the_timeline_has_the_windows_and_chooses_them"({ link, open }) {
    const page = await open(link);
    const timeline = page.getByTestId("timeline");
    await timeline.locator("svg path.line").waitFor();
    check(await timeline.locator("svg .threshold").count() === 1, "the threshold is not drawn");
    for (const window of ["before", "breach", "after"]) {
      check(await timeline.locator(`svg .band.${window}`).count() === 1, `the window ${window} is not marked`);
      await page.getByTestId(`window-${window}`).click();
      if (window !== "breach") await inAddress(page, "window", window);
      await drawn(page);
      const pressed = await page.getByTestId(`window-${window}`).getAttribute("aria-pressed");
      check(pressed === "true", `the window ${window} is not shown as chosen`);
    }
    // A click into the picture does the same.
    const box = await timeline.locator("svg .band.before .fill").boundingBox();
    await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
    await inAddress(page, "window", "before");
    await drawn(page);
    check(await share(page, "^calm_work$") > 30, "before the breach there was calm work");
    await timeline.getByRole("button", { name: "Table" }).click();
    const rows = await timeline.locator("tbody tr").count();
    check(rows >= 5, `the table of the timeline has ${rows} rows`);
  },

  async "snapshot::the_culprit_is_seen_in_the_profile_at_once"({ link, open }) {
    for (const theme of ["light", "dark"]) {
      const page = await open(link, { size: [1280, 720], theme });
      await drawn(page);
      check(await page.evaluate(() => scrollY) === 0, "the page was scrolled");
      // The frame is marked by its outline, whose colour no frame has.
      const marked = await page.$eval(CANVAS, (canvas) => {
        const probe = document.createElement("span");
        probe.style.color = "var(--bad-strong)";
        document.body.append(probe);
        const wanted = getComputedStyle(probe).color.match(/\d+/g).map(Number);
        probe.remove();
        const copy = document.createElement("canvas");
        copy.width = canvas.width;
        copy.height = canvas.height;
        const pen = copy.getContext("2d", { willReadFrequently: true });
        pen.drawImage(canvas, 0, 0);
        const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
        const box = canvas.getBoundingClientRect();
        for (let row = 0; row < canvas.height; row++) {
          let found = 0;
          for (let x = 0; x < canvas.width; x++) {
            const at = 4 * (row * canvas.width + x);
            if (wanted.every((value, channel) => Math.abs(data[at + channel] - value) <= 2)) found++;
          }
          if (found > canvas.width / 4) return { y: box.top + (row / canvas.height) * box.height, share: found / canvas.width };
        }
        return null;
      });
      check(marked, `${theme}: the culprit is not marked`);
      check(marked.y < 690 && marked.share > 0.5, `${theme}: the culprit is marked at ${marked.y} px over ${marked.share} of the width`);
      check(/◆ culprit/.test(await page.locator(".foot").innerText()), "the mark is not explained");
    }
  },

  async "snapshot::the_dump_opens_as_a_list_of_threads"({ link, open }) {
    const page = await open(link);
    await page.getByTestId("window-dump").click();
    await inAddress(page, "view", "dump");
    await page.getByRole("region", { name: "Threads by stack" }).waitFor();
    check(await page.getByTestId("window-dump").getAttribute("aria-pressed") === "true", "the dump is not shown as chosen");
    await page.getByTestId("window-before").click();
    await inAddress(page, "view", null);
    await drawn(page);
    check(await page.getByRole("tab", { name: "Flamegraph" }).getAttribute("aria-selected") === "true", "another window is still shown as a dump");
  },

  async "snapshot::threads_have_shares_and_states_and_choose_the_profile"({ link, open }) {
    const page = await open(link);
    const first = page.getByTestId("threads").locator("li").first();
    await first.waitFor();
    const text = (await first.innerText()).replace(/\s+/g, " ");
    check(/^matcher \d+ [\d.]+ ?%/.test(text) && /sample/.test(text), `the hottest thread reads ${text}`);
    await first.getByRole("button").click();
    await inAddress(page, "thread", /^\d+$/);
    await drawn(page);
    check(await share(page, "^match_rules$") > 80, "the thread's profile is not that of its function");
  },

  async "snapshot::what_is_missing_is_said"({ link, open }) {
    const page = await open(link);
    await page.getByTestId("facts").locator("summary").click();
    const facts = await page.getByTestId("facts").innerText();
    for (const said of ["Linux", "What is missing", "Host"]) check(facts.includes(said), `the facts do not say ${said}`);
    check(/nothing lost|kinds? of loss/.test(await page.getByTestId("losses").innerText()), "nothing says what was lost");
    await drawn(page);
    check(/sample/.test(await page.locator(".truth").innerText()), "the profile does not say of how many samples it is");
  },

  async "snapshot::one_that_is_not_there_says_so"({ daemon, open, pages }) {
    pages.allow(/status of 404/);
    const page = await open(`${daemon.url}/snapshots/01ARZ3NDEKTSV4RRFFQ69G5FAV`);
    await until("it says that there is none", async () => (await page.locator("main").innerText()).includes("no such snapshot"));
  },
};
