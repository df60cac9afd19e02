// Using the profile on a page as a person does.

import { check, until } from "./harness.mjs";
import { painted } from "./browser.mjs";

export const CANVAS = "#profile-panel canvas";

/** Waits until the profile stands there. */
export async function drawn(page) {
  await until("the profile is drawn", () => page.evaluate(() => {
    const panel = document.querySelector("#profile-panel");
    if (!panel || panel.getAttribute("aria-busy") === "true" || panel.querySelector(".skeleton")) return false;
    const canvas = panel.querySelector(".host canvas");
    return !canvas || Number(canvas.dataset.nodes) > 0;
  }), 30_000);
  await painted(page);
}

/** Opens a view by its tab. */
export async function view(page, name) {
  await page.getByRole("tab", { name, exact: true }).click();
  await drawn(page);
}

/** A number that changes with the picture, and how many colours it has. */
export function picture(page, selector = CANVAS) {
  return page.$eval(selector, (canvas) => {
    const copy = document.createElement("canvas");
    copy.width = canvas.width;
    copy.height = canvas.height;
    const pen = copy.getContext("2d", { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0);
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    const colors = new Set();
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) {
      const color = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
      if (data[at + 3]) colors.add(color);
      sum = (Math.imul(sum, 31) + color) | 0;
    }
    return { sum, colors: colors.size };
  });
}

/** What the tip at the pointer says. */
export async function tip(page) {
  const shown = page.locator(".chart-tip:not([hidden])");
  return await shown.count() ? (await shown.first().innerText()) : "";
}

/** Points at the frame of a function, and says where that was. */
export async function pointAt(page, name, selector = CANVAS) {
  await page.locator(selector).first().evaluate((canvas) => canvas.scrollIntoView({ block: "center" }));
  const box = await page.locator(selector).first().boundingBox();
  for (let y = 8; y < box.height; y += 10) {
    for (const share of [0.4, 0.15, 0.65, 0.9]) {
      const place = { x: box.x + box.width * share, y: box.y + y };
      await page.mouse.move(place.x, place.y);
      const named = await page.evaluate(() => document.querySelector(".chart-tip:not([hidden]) b")?.textContent ?? "");
      if (named === name) {
        await painted(page);
        return place;
      }
      if (!named) break;
    }
  }
  throw new Error(`no frame of ${name} is in the picture`);
}

export async function search(page, text) {
  // Else what the last search found would be taken for the answer.
  await page.getByRole("searchbox").fill("");
  await until("the last search is gone", () => page.$eval(".matched", (output) => !output.textContent.trim()));
  await page.getByRole("searchbox").fill(text);
  await until("the search is done", () => page.$eval(".matched", (output) => output.textContent.trim()));
  await painted(page);
  return page.$eval(".matched", (output) => output.textContent.trim());
}

/** The share of all that a search says it found. */
export async function share(page, text) {
  const found = await search(page, text);
  const match = /^([\d.]+)% in (\d+)$/.exec(found);
  check(match, `the search for ${text} says ${JSON.stringify(found)}`);
  return Number(match[1]);
}

/** Where the zoom is, by the path below the picture. */
export async function zoomed(page) {
  const current = page.locator(".crumbs [aria-current]");
  return await current.count() ? (await current.innerText()).trim() : "";
}

/** Waits for the address to have a parameter. */
export function inAddress(page, name, value) {
  return until(`${name}=${value} in the address`, () => {
    const now = new URL(page.url()).searchParams.get(name);
    return value instanceof RegExp ? now !== null && value.test(now) : now === value;
  }).catch((error) => { throw new Error(`${error.message}: ${page.url()}`); });
}
