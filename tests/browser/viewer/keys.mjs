// The keyboard, the way back and forward, and that the address says it all.

import { painted } from "../lib/browser.mjs";
import { CANVAS, drawn, inAddress, picture, pointAt, search, share, view, zoomed } from "../lib/chart.mjs";
import { check, until } from "../lib/harness.mjs";

export const needs = ["daemon", "breach"];

async function profile({ link, open }, query = "") {
  const page = await open(link + query);
  await drawn(page);
  return page;
}

export const tests = {
  async "keys::a_question_mark_shows_them_all"(scene) {
    const page = await profile(scene);
    await page.keyboard.press("?");
    const dialog = page.getByRole("dialog");
    await dialog.waitFor();
    for (const said of ["search", "zoom", "back and forward"]) check((await dialog.innerText()).includes(said), `the help lacks ${said}`);
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
  },

  async "keys::a_slash_searches_with_a_regular_expression"(scene) {
    const page = await profile(scene);
    const before = await picture(page);
    await page.keyboard.press("/");
    await page.keyboard.type("^(match|calm)_");
    await inAddress(page, "q", "^(match|calm)_");
    await until("a share", async () => /^[\d.]+% in \d+$/.test((await page.locator(".matched").innerText()).trim()));
    await painted(page);
    check((await picture(page)).sum !== before.sum, "what is found is not highlighted");
    check(await search(page, "no such function") === "no match", "what is not there is found");
    const found = await search(page, "match_rules(");
    check(found === "no match" && /Searched as text/.test(await page.locator(".search-problem").innerText()), "a broken expression is not explained");
    await page.keyboard.press("Escape");
    await inAddress(page, "q", null);
    await painted(page);
    check((await picture(page)).sum === before.sum, "after the search was cleared the picture is another one");
  },

  async "keys::arrows_move_enter_zooms_and_escape_resets"(scene) {
    const page = await profile(scene);
    const whole = await picture(page);
    await page.locator(".flame .host").focus();
    const said = () => page.locator(".flame .said").innerText();
    await page.keyboard.press("ArrowDown");
    const first = await until("the root is read", said);
    await page.keyboard.press("ArrowDown");
    await until("a callee is read", async () => await said() !== first);
    await page.keyboard.press("Enter");
    await inAddress(page, "frame", /./);
    await page.keyboard.press("0");
    await inAddress(page, "frame", null);
    // To what was found, and into it.
    await search(page, "^match_rules$");
    await page.keyboard.press("Enter");
    await until("the match is read", async () => (await said()).includes("match_rules"));
    await page.keyboard.press("Enter");
    await inAddress(page, "frame", /./);
    check(await zoomed(page) === "match_rules", `zoomed into ${await zoomed(page)}`);
    await page.keyboard.press("Escape");
    await inAddress(page, "q", null);
    await page.keyboard.press("Escape");
    await inAddress(page, "frame", null);
    await page.locator("h1").first().hover();
    await page.getByRole("searchbox").focus();
    await until("everything is shown again", async () => (await picture(page)).sum === whole.sum);
  },

  async "keys::plus_and_the_wheel_zoom_and_a_click_does"(scene) {
    const page = await profile(scene);
    const whole = await picture(page);
    await page.locator(".flame .host").focus();
    await page.keyboard.press("+");
    await until("the picture is larger", async () => (await picture(page)).sum !== whole.sum);
    await page.keyboard.press("0");
    const place = await pointAt(page, "match_rules");
    await page.mouse.click(place.x, place.y);
    await inAddress(page, "frame", /./);
    check(await zoomed(page) === "match_rules", `a click zoomed into ${await zoomed(page)}`);
    await page.mouse.dblclick(place.x, place.y);
    await page.keyboard.press("0");
    await inAddress(page, "frame", null);
    await painted(page);
    const now = await picture(page);
    await page.keyboard.down("Control");
    await page.mouse.wheel(0, -300);
    await page.keyboard.up("Control");
    await until("the wheel zooms", async () => (await picture(page)).sum !== now.sum);
  },

  async "keys::fingers_pan_and_pinch"(scene) {
    const page = await scene.open(`${scene.link}?view=diff`, { size: [390, 844], touch: true });
    await drawn(page);
    const canvas = page.locator(CANVAS);
    await canvas.evaluate((one) => one.scrollIntoView({ block: "center" }));
    const box = await canvas.boundingBox();
    const whole = await picture(page);
    const client = await page.context().newCDPSession(page);
    const middle = { x: box.x + box.width / 2, y: box.y + 60 };
    const touch = async (type, ...points) => {
      await client.send("Input.dispatchTouchEvent", { type, touchPoints: points.map(([right, down], id) => ({ x: middle.x + right, y: middle.y + down, id })) });
      await painted(page);
    };
    await touch("touchStart", [-30, 0], [30, 0]);
    for (const apart of [50, 80, 120]) await touch("touchMove", [-apart, 0], [apart, 0]);
    await touch("touchEnd");
    const zoomed = await until("the picture is larger", async () => {
      const now = await picture(page);
      return now.sum !== whole.sum && now;
    });
    check(!new URL(page.url()).searchParams.has("frame"), "two fingers chose a frame");
    await touch("touchStart", [0, 0]);
    for (const right of [-20, -50, -90]) await touch("touchMove", [right, 0]);
    await touch("touchEnd");
    await until("the picture has moved", async () => (await picture(page)).sum !== zoomed.sum);
    check(!new URL(page.url()).searchParams.has("frame"), "a finger that moved chose a frame");
    await touch("touchStart", [-120, 0], [120, 0]);
    for (const apart of [80, 40, 30]) await touch("touchMove", [-apart, 0], [apart, 0]);
    await touch("touchEnd");
    await until("everything is shown again", async () => (await picture(page)).sum === whole.sum);
  },

  async "keys::the_focus_goes_through_the_profile_in_order"(scene) {
    const page = await profile(scene);
    await page.getByRole("tab", { name: "Flamegraph" }).focus();
    const seen = [];
    for (let presses = 0; presses < 24 && seen.at(-1) !== "flamegraph"; presses++) {
      await page.keyboard.press("Tab");
      seen.push(await page.evaluate(() => {
        const { activeElement: one } = document;
        const box = one.getBoundingClientRect();
        if (box.width === 0) return "nothing that is seen";
        return one.getAttribute("aria-roledescription") ?? (one.getAttribute("aria-label") || one.textContent.trim() || one.title);
      }));
    }
    const order = [/^Search/, /^Download/, /^Keys$/, /Breach/, /^Flame$/, /^Callers$/, /^Merge runtime$/, /^Show culprit$/, /^flamegraph$/];
    let at = 0;
    for (const name of seen) if (order[at]?.test(name)) at++;
    check(at === order.length, `the focus goes through ${seen.join(", ")}`);
    check(!seen.includes("nothing that is seen"), "something that is not seen has the focus");
    await page.keyboard.press("Shift+Tab");
    await page.getByRole("tab", { name: "Flamegraph" }).focus();
    await page.keyboard.press("ArrowRight");
    await inAddress(page, "view", "diff");
    await page.keyboard.press("Home");
    await inAddress(page, "view", null);
  },

  async "keys::names_and_stacks_are_copied"(scene) {
    const page = await profile(scene);
    await pointAt(page, "match_rules");
    await page.keyboard.press("c");
    await until("the name is copied", async () => await page.evaluate(() => navigator.clipboard.readText()) === "match_rules");
    await page.keyboard.press("C");
    await until("the stack is copied", async () => /matcher[^]*\nmatch_rules$/.test(await page.evaluate(() => navigator.clipboard.readText())));
    await page.getByRole("button", { name: "Copy link" }).click();
    await until("the link is copied", async () => await page.evaluate(() => navigator.clipboard.readText()) === page.url());
  },

  async "keys::back_and_forward_go_through_what_was_chosen"(scene) {
    const page = await profile(scene);
    await view(page, "Top");
    await inAddress(page, "view", "top");
    await page.locator(".top tbody .name", { hasText: /^match_rules$/ }).click();
    await inAddress(page, "view", "sandwich");
    await page.goBack();
    await inAddress(page, "view", "top");
    await page.locator(".top tbody tr").first().waitFor();
    await page.goBack();
    await inAddress(page, "view", null);
    await page.locator(CANVAS).waitFor();
    await page.goForward();
    await inAddress(page, "view", "top");
    await page.goForward();
    await inAddress(page, "func", "match_rules");
    await page.locator(".sandwich").waitFor();
    // Out of the page and back into the same state of it.
    await page.getByRole("link", { name: "Snapshots", exact: true }).first().click();
    await page.getByTestId("snapshots").waitFor();
    await page.goBack();
    await page.locator(".sandwich .function", { hasText: "match_rules" }).waitFor();
  },

  async "keys::a_copied_link_shows_the_same"(scene) {
    const page = await profile(scene);
    await page.getByTestId("window-after").click();
    await drawn(page);
    await page.keyboard.press("i");
    await share(page, "^match_rules$");
    const place = await pointAt(page, "match_rules");
    await page.mouse.click(place.x, place.y);
    await inAddress(page, "frame", /./);
    await page.mouse.move(2, 300);
    const other = await scene.open(page.url());
    await drawn(other);
    await until("the same search", async () => await other.locator(".matched").innerText() === await page.locator(".matched").innerText());
    check(await zoomed(other) === "match_rules", `the other page is zoomed into ${await zoomed(other)}`);
    check(await other.getByTestId("window-after").getAttribute("aria-pressed") === "true", "the other page shows another window");
    await other.mouse.move(2, 300);
    // The one that was used has the focus on a frame, which is outlined.
    const again = await scene.open(page.url());
    await drawn(again);
    await until("the same picture", async () => (await picture(other)).sum === (await picture(again)).sum);
    const legend = await page.$eval(CANVAS, ({ dataset }) => dataset.nodes);
    check(await other.$eval(CANVAS, ({ dataset }) => dataset.nodes) === legend, "the other page has another tree");
  },
};
