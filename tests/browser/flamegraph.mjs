// Opens the HTML flamegraph that probe wrote, from file:// in a headless Chromium, and uses it as a person would.
//
//     npm ci && node flamegraph.mjs FILE.html [--screenshot FILE.png] [--theme dark] [--size 1280x720]
//
// Any profile with a few functions will do. Exits with 1 and says what is wrong if something is. CHROMIUM names another
// browser than /usr/bin/chromium.

import { statSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

import { picture } from "./lib/chart.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    screenshot: { type: "string" },
    theme: { type: "string", default: "light" },
    size: { type: "string", default: "1280x720" },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node flamegraph.mjs FILE.html [--screenshot FILE.png] [--theme light|dark] [--size 1280x720]");
  process.exit(2);
}
const file = resolve(positionals[0]);
statSync(file);
const url = pathToFileURL(file).href;
const [width, height] = options.size.split("x").map(Number);

const failures = [];
let checks = 0;
function check(holds, message) {
  checks++;
  if (!holds) failures.push(message);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  for (const ratio of [1, 2]) await use(ratio);
} catch (error) {
  failures.push(`the page could not be used: ${error.message.split("\n")[0]}`);
} finally {
  await browser.close();
}
for (const failure of failures) console.error(`FAILED: ${failure}`);
console.log(`${file}: ${checks} checks, ${failures.length} failed`);
process.exit(failures.length ? 1 : 0);

/** Everything, at a given number of device pixels per pixel. */
async function use(ratio) {
  const context = await browser.newContext({
    viewport: { width, height }, deviceScaleFactor: ratio, colorScheme: options.theme,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) failures.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => failures.push(`script error: ${error.message}`));
  page.on("dialog", (dialog) => { failures.push(`a dialog opened: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (request.url() !== url) failures.push(`it asked for ${request.url()}`); });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  const began = Date.now();
  await page.goto(url);
  await drawn(page);
  const took = Date.now() - began;
  check(took < 15000, `it took ${took} ms to show anything`);
  if (ratio === 1) console.log(`drawn after ${took} ms`);

  check(await page.title() !== "", "it has no title");
  check(/samples/.test(await page.textContent("#facts")), "the header does not say how many samples there are");
  await checkCanvas(page, ratio);
  if (options.screenshot && ratio === 1) {
    await hoverSomething(page);
    await page.screenshot({ path: options.screenshot });
  }
  await checkSearch(page);
  await checkZoom(page);
  await checkDirection(page);
  await checkOrder(page);
  await checkAddress(page);
  await checkThreads(page);
  await checkRest(page, ratio);
  await checkNames(page);
  for (const violation of await page.evaluate(() => window.violations)) failures.push(`policy violation: ${violation}`);
  await context.close();
}

/** Two frames later everything that was asked for is painted. */
function drawn(page) {
  return page.evaluate(() =>
    new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)))));
}

function state(page) {
  return page.evaluate(() => ({ ...document.documentElement.dataset, matched: document.getElementById("matched").value }));
}

/** The functions listed at the side, heaviest first. */
function listed(page) {
  return page.$$eval("#rows tr td:first-child", (cells) => cells.map((cell) => cell.textContent));
}

/** A frame which is on the screen, is not everything, and can be hit. */
async function someFrame(page) {
  for (const name of await listed(page)) {
    const place = await page.evaluate((name) => window.flamegraph.locate(name), name);
    const all = Number((await state(page)).weight);
    if (place && place.width >= 4 && place.weight < all) return { name, ...place };
  }
  return null;
}

async function hoverSomething(page) {
  const frame = await someFrame(page);
  if (!frame) return;
  await page.mouse.move(frame.x + Math.min(frame.width / 2, 60), frame.y + frame.height / 2);
  await drawn(page);
}

async function checkCanvas(page, ratio) {
  const { colors } = await picture(page, "#chart");
  check(colors > 4, `the canvas has ${colors} colours: nothing was painted`);
  check(Number((await state(page)).drawn) > 2, "hardly any frame was drawn");
  const wide = await page.$eval("#chart", (canvas) => canvas.width / canvas.clientWidth);
  check(Math.abs(wide - ratio) < 0.02, `the canvas has ${wide} device pixels per pixel instead of ${ratio}`);
  await hoverSomething(page);
  check(await page.isVisible("#tip"), "hovering over a frame shows nothing");
  check(/samples?|s$|B$/.test(await page.textContent("#tip dd")), "what is shown on hovering has no weight");
  await page.mouse.move(2, 2);
}

async function checkSearch(page) {
  const [name] = await listed(page);
  check(!!name, "no function is listed");
  const before = await picture(page, "#chart");
  await page.keyboard.press("/");
  await page.keyboard.insertText(name.slice(0, 60).replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
  await drawn(page);
  const { matched } = await state(page);
  check(/^[\d.]+% in \d+$/.test(matched), `searching for ${name} says ${JSON.stringify(matched)}`);
  check(parseFloat(matched) > 0, `searching for ${name} finds nothing`);
  check((await picture(page, "#chart")).sum !== before.sum, "what was found is not highlighted");
  await page.fill("#search", "no such function (");
  await drawn(page);
  check((await state(page)).matched === "no match", "a broken expression is not searched for as it stands");
  await page.keyboard.press("Escape");
  await drawn(page);
  check((await state(page)).matched === "", "Esc does not clear the search");
  check((await picture(page, "#chart")).sum === before.sum, "the picture is another one after the search was cleared");
}

async function checkZoom(page) {
  const frame = await someFrame(page);
  check(!!frame, "there is no frame to zoom into");
  if (!frame) return;
  const click = () => page.mouse.click(frame.x + frame.width / 2, frame.y + frame.height / 2);
  const before = await state(page);
  await click();
  await drawn(page);
  check((await state(page)).zoom.includes(frame.name.slice(0, 150)), `a click on ${frame.name} does not zoom into it`);
  const zoomed = await page.evaluate((name) => window.flamegraph.locate(name), frame.name);
  const whole = await page.$eval("#chart", (canvas) => canvas.clientWidth);
  check(zoomed && Math.abs(zoomed.width - whole) < 2, "the zoomed frame does not take the whole width");
  check(await page.isEnabled("#reset"), "the zoom cannot be reset");
  for (const key of ["Escape", "Backspace"]) {
    await page.keyboard.press(key);
    await drawn(page);
    check((await state(page)).zoom === before.zoom, `${key} does not zoom out`);
    if (key === "Escape") await page.evaluate(() => document.getElementById("view").scrollTo(0, 1e9));
    const again = await page.evaluate((name) => window.flamegraph.locate(name), frame.name);
    if (again && key === "Escape") await page.mouse.click(again.x + again.width / 2, again.y + again.height / 2);
  }
}

async function checkDirection(page) {
  const before = await picture(page, "#chart");
  const first = (await state(page)).direction;
  await page.click(first === "flame" ? "#icicle" : "#flame");
  await drawn(page);
  check((await state(page)).direction !== first, "the direction cannot be inverted");
  check((await picture(page, "#chart")).sum !== before.sum, "inverted, the picture is the same");
  await page.keyboard.press("i");
  await drawn(page);
  check((await state(page)).direction === first, "the key i does not invert the direction");
}

/** A copied address shows the same. */
async function checkAddress(page) {
  const [name] = await listed(page);
  await page.click("#callers");
  await page.fill("#search", name.slice(0, 60).replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
  await drawn(page);
  const frame = await someFrame(page);
  if (frame) await page.mouse.click(frame.x + frame.width / 2, frame.y + frame.height / 2);
  await drawn(page);
  const here = await state(page);
  const other = await page.context().newPage();
  await other.goto(page.url());
  await drawn(other);
  const there = await state(other);
  for (const key of ["zoom", "order", "direction", "weight", "matched"]) {
    check(there[key] === here[key], `the same address shows ${key} ${there[key]} instead of ${here[key]}`);
  }
  await other.close();
  // An address that is typed is followed too.
  await page.evaluate(() => { location.hash = ""; });
  await drawn(page);
  const whole = await state(page);
  check(whole.order === "callees" && whole.matched === "", "an address without anything shows what another one did");
}

async function checkOrder(page) {
  const before = await state(page);
  await page.click("#callers");
  await drawn(page);
  const after = await state(page);
  check(after.order === "callers", "the order cannot be reversed");
  check(after.weight === before.weight, `reversed, the weight is ${after.weight} instead of ${before.weight}`);
  check((await picture(page, "#chart")).colors > 4, "reversed, nothing is painted");
  await page.keyboard.press("r");
  await drawn(page);
  check((await state(page)).order === before.order, "the key r does not reverse the order");
}

async function checkThreads(page) {
  const choices = await page.$$eval("#thread option", (choices) => choices.map((choice) => choice.value));
  const all = Number((await state(page)).weight);
  let sum = 0;
  const single = choices.filter((choice) => choice !== "" && !choice.includes(",")).slice(0, 50);
  for (const choice of single) {
    await page.selectOption("#thread", choice);
    await drawn(page);
    const weight = Number((await state(page)).weight);
    check(weight <= all, `thread ${choice} weighs more than all`);
    sum += weight;
  }
  if (single.length === choices.length - 1 || single.length < 50) {
    check(sum === all, `the threads weigh ${sum} together, all of them ${all}`);
  }
  await page.selectOption("#thread", "");
  await drawn(page);
  check(Number((await state(page)).weight) === all, "all threads cannot be chosen again");
}

async function checkRest(page, ratio) {
  await page.focus("#view");
  await page.keyboard.press("?");
  check(await page.isVisible("#keys"), "the key ? does not show the keys");
  await page.keyboard.press("Escape");
  check(!(await page.isVisible("#keys")), "Esc does not close the keys");

  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const before = await ground();
  await page.keyboard.press("d");
  check((await ground()) !== before, "the key d does not change the theme");
  await page.keyboard.press("d");

  await page.setViewportSize({ width: 1000, height: 600 });
  await drawn(page);
  const { wide, client, scrolls } = await page.evaluate(() => {
    const canvas = document.getElementById("chart"), root = document.documentElement;
    return { wide: canvas.width, client: canvas.clientWidth, scrolls: root.scrollWidth > root.clientWidth };
  });
  check(Math.abs(wide - client * ratio) <= 1, "the canvas does not follow the size of the window");
  check(!scrolls, "a narrow window has to be scrolled sideways");
  await page.setViewportSize({ width, height });
}

/** Names from a target never became markup. */
async function checkNames(page) {
  const found = await page.evaluate(() => ({
    scripts: document.scripts.length,
    foreign: document.querySelectorAll("img, iframe, object, embed, svg, link, video, audio, base, a").length,
    handlers: [...document.querySelectorAll("*")].filter((e) => [...e.attributes].some((a) => /^on/i.test(a.name))).length,
  }));
  check(found.scripts === 2, `the page has ${found.scripts} script elements instead of 2`);
  check(found.foreign === 0 && found.handlers === 0, "a name became markup");
}
