// The pages of what is live, against the daemon: they change by themselves, and what is done on them is done.

import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

import { drawn, share } from "../lib/chart.mjs";
import { check, until } from "../lib/harness.mjs";

export const needs = ["daemon", "breach"];

/** What the page makes of the tree that is shown, and what shows that it is what it says. */
const SHOWN = {
  pprof: (bytes) => gunzipSync(bytes).includes("match_rules"),
  Folded: (bytes) => /;match_rules \d+$/m.test(bytes),
  speedscope: (bytes) => JSON.parse(bytes).shared.frames.some(({ name }) => name === "match_rules"),
};

/** The hot service uses about a core. */
const percent = (text) => Number(/([\d.]+)\s*%/.exec(text)?.[1]);

export const tests = {
  async "live::targets_show_their_metrics_and_how_they_move"({ daemon, open }) {
    const page = await open(`${daemon.url}/`);
    const target = page.locator('[data-testid=target][data-name="checkout"]');
    await until("the hot service's CPU", async () => percent(await target.locator(".metric").first().innerText()) > 10);
    await until("a spark line of three values", () => target.locator(".spark").first().evaluate((spark) =>
      spark.querySelector(".line").getAttribute("d").split(/[ML]/).length > 3));
    check(/firing/.test(await target.innerText()), "the target does not say that it fires");
    check(await page.getByTestId("connection").getAttribute("data-state") === "on", "the page is not connected");
  },

  async "live::a_service_shows_its_threads_now"({ daemon, open }) {
    const page = await open(`${daemon.url}/targets/checkout`);
    const first = page.getByTestId("threads").locator("tbody tr").first();
    await until("the busy thread is first", async () => /matcher/.test(await first.innerText()) && percent(await first.innerText()) > 10);
    check(/running|runnable|waits for a CPU/i.test(await first.innerText()), `its state reads ${await first.innerText()}`);
    check(await page.getByTestId("threads").locator("tbody tr").count() === 3, "not all threads are listed");
  },

  async "live::a_recording_from_the_page"({ daemon, open }) {
    const page = await open(`${daemon.url}/targets/checkout`);
    await page.getByLabel("For (seconds)").fill("3");
    await page.getByTestId("record").click();
    await page.getByTestId("progress").locator("progress").waitFor();
    await page.getByTestId("measured").waitFor({ timeout: 40_000 });
    await drawn(page);
    check(await share(page, "^match_rules$") > 60, "the recording is not of the hot function");
    // It is kept nowhere but in the page, which gives it away.
    for (const [name, holds] of Object.entries(SHOWN)) {
      await page.locator(".menu summary").click();
      const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: `${name}, as shown` }).click()]);
      check(holds(readFileSync(await download.path())), `${name} does not have the hot function`);
      await page.locator(".menu[open] summary").click();
    }
    // A second one is another one, though its name is the same.
    const first = await page.locator("#result-title").innerText();
    await page.getByTestId("record").click();
    await until("the second recording", async () => await page.locator("#result-title").innerText() !== first, 40_000);
    await drawn(page);
  },

  async "live::a_dump_from_the_page"({ daemon, open }) {
    const page = await open(`${daemon.url}/targets/checkout`);
    await page.getByTestId("dump").click();
    const measured = page.getByTestId("measured");
    await measured.waitFor({ timeout: 40_000 });
    await drawn(page);
    check(await page.getByRole("tab", { name: "Threads" }).getAttribute("aria-selected") === "true", "it does not open as a list of threads");
    check(await measured.getByRole("heading").first().evaluate((title) => title === document.activeElement), "the result has not the focus");
    await until("every thread", async () => {
      const text = await measured.innerText();
      return /matcher/.test(text) && /poller/.test(text) && /match_rules/.test(text);
    });
  },

  async "live::a_rule_is_corrected_where_it_is_wrong_and_then_fires_by_itself"({ daemon, open, pages }) {
    pages.allow(/status of 4(00|09|22)/);
    const alerts = await open(`${daemon.url}/alerts`);
    await alerts.getByTestId("firing").locator("li").first().waitFor();
    await alerts.evaluate(() => { window.isTheSamePage = true; });
    const page = await open(`${daemon.url}/rules`);
    await page.locator('[data-testid=rule][data-name="checkout-cpu"]').waitFor();
    await page.getByTestId("add").click();
    const form = page.getByTestId("definition-form");
    await form.getByLabel(/^Name/).fill("from-the-page");
    await form.getByLabel(/^Target/).fill("checkout");
    await form.getByLabel(/^Metric/).selectOption("cpu");
    await form.getByLabel("Above", { exact: true }).fill("40 bananas");
    await form.getByLabel("For", { exact: true }).fill("1s");
    await form.getByRole("button", { name: "Add" }).click();
    const above = form.getByLabel("Above", { exact: true });
    await until("the field is marked", async () => await above.getAttribute("aria-invalid") === "true");
    const about = await form.locator(`#${await above.getAttribute("aria-describedby")}`).innerText();
    check(/bananas|number|unit|percent/i.test(about), `at the field stands ${about}`);
    check(await above.evaluate((field) => field === document.activeElement), "the wrong field has not the focus");
    await above.fill("5");
    // More than the recorder holds, which stands among the settings that are not shown at first.
    await form.getByRole("button", { name: "More settings…" }).click();
    await form.getByLabel("Keep before").fill("2s");
    await form.getByLabel("Keep after").fill("1s");
    await form.getByRole("button", { name: "Add" }).click();
    await form.waitFor({ state: "detached" });
    await page.locator('[data-testid=rule][data-name="from-the-page"]').waitFor();
    // Nobody reloads the other page.
    const event = alerts.getByTestId("events").locator("li", { hasText: "from-the-page" }).filter({ hasText: "firing" });
    await event.first().waitFor({ timeout: 30_000 });
    await alerts.getByTestId("firing").locator("li", { hasText: "from-the-page" }).waitFor();
    check(await alerts.evaluate(() => window.isTheSamePage === true), "the page was loaded anew");
    await page.getByRole("button", { name: "Remove from-the-page" }).click();
    await page.getByTestId("confirm").getByRole("button", { name: "Remove" }).click();
    await page.locator('[data-testid=rule][data-name="from-the-page"]').waitFor({ state: "detached" });
  },

  async "live::a_change_becomes_a_threshold"({ daemon, open }) {
    const page = await open(`${daemon.url}/rules`);
    await page.getByTestId("add").click();
    const form = page.getByTestId("definition-form");
    await form.getByLabel(/^Name/).fill("turning");
    await form.getByLabel(/^Target/).fill("checkout");
    await form.getByLabel(/^Metric/).selectOption("cpu");
    await form.getByRole("button", { name: "More settings…" }).click();
    const windows = form.getByLabel("Windows", { exact: true });
    check(await windows.count() === 0, "the windows of a change are asked for without one");
    await form.getByLabel("Change", { exact: true }).fill("5000");
    await windows.fill("30");
    await form.getByLabel("Keep before").fill("2s");
    await form.getByLabel("Keep after").fill("1s");
    await form.getByLabel("Quiet", { exact: true }).fill("Mon-Fri 22:00-06:00; Sat,Sun");
    await form.getByLabel("Time zone").fill("Europe/Berlin");
    await form.getByRole("button", { name: "Add" }).click();
    await form.waitFor({ state: "detached" });
    const listed = async () => (await (await fetch(`${daemon.url}/api/v1/rules/turning`)).json()).definition;
    const change = await listed();
    check(change.windows === 30 && change.quiet?.length === 2 && change.timezone === "Europe/Berlin", `it is ${JSON.stringify(change)}`);
    await page.getByRole("button", { name: "Change turning" }).click();
    await form.getByLabel("Change", { exact: true }).fill("");
    await form.getByLabel("Above", { exact: true }).fill("5000");
    await form.getByLabel("Max", { exact: true }).fill("9000");
    await form.getByRole("button", { name: "Save" }).click();
    await form.waitFor({ state: "detached" });
    const above = await listed();
    check(above.above === 5000 && above.max === 9000 && !("change" in above || "windows" in above || "min" in above), `it is ${JSON.stringify(above)}`);
    await page.getByRole("button", { name: "Remove turning" }).click();
    await page.getByTestId("confirm").getByRole("button", { name: "Remove" }).click();
    await page.locator('[data-testid=rule][data-name="turning"]').waitFor({ state: "detached" });
  },

  async "live::a_function_is_added_and_timed"({ daemon, open }) {
    const page = await open(`${daemon.url}/functions`);
    await page.locator('[data-testid=function][data-name="sends"]').waitFor();
    await page.getByTestId("add").click();
    const form = page.getByTestId("definition-form");
    await form.getByLabel(/^Name/).fill("recurring");
    await form.getByLabel(/^Target/).fill("push");
    await form.getByLabel(/^Symbol/).fill("recurs");
    await form.getByLabel(/^Threshold/).fill("soon");
    await form.getByRole("button", { name: "Add" }).click();
    check(/duration/.test(await form.locator("#about-threshold").innerText()), "a wrong duration is not explained");
    await form.getByLabel(/^Threshold/).fill("5ms");
    await form.getByRole("button", { name: "Add" }).click();
    const added = page.locator('[data-testid=function][data-name="recurring"]');
    await until("its calls are timed", async () => /pid \d+[^]*\d/.test(await added.locator(".figures").innerText()), 30_000);
    await page.getByRole("button", { name: "Remove recurring" }).click();
    await page.getByTestId("confirm").getByRole("button", { name: "Remove" }).click();
    await added.waitFor({ state: "detached" });
  },

  async "live::snapshots_are_filtered"({ daemon, open }) {
    await daemon.link("push-slow");
    const page = await open(`${daemon.url}/snapshots`);
    const rows = page.getByTestId("snapshot");
    await until("both snapshots", async () => await rows.count() >= 2);
    await page.getByLabel("Rule").fill("checkout-cpu");
    await page.getByLabel("Rule").press("Enter");
    await until("one is left", async () => await rows.count() === 1 && /match_rules/.test(await rows.first().innerText()));
    check(new URL(page.url()).searchParams.get("rule") === "checkout-cpu", "the filter is not in the address");
    await page.getByLabel("Host").fill("elsewhere");
    await page.getByLabel("Host").press("Enter");
    await until("none fits", async () => /No snapshot matches/.test(await page.locator("main").innerText()));
    await page.getByRole("button", { name: "Clear" }).click();
    await until("both again", async () => await rows.count() >= 2);
    await rows.first().getByRole("link").click();
    await page.getByTestId("timeline").waitFor();
  },
};
