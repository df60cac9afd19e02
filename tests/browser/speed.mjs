// How fast a large profile opens, and how smoothly it is panned and zoomed; next to speedscope, with the same file in the same
// run. Started by `cargo xtask bench viewer`.
//
//     node speed.mjs --probe target/release/probe --speedscope FOLDER [--nodes 200000] [--rounds 5]

import { createServer } from "node:http";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";

import { launch } from "./lib/browser.mjs";
import { foldedTree } from "./lib/large.mjs";
import { end, firstLine, start } from "./lib/processes.mjs";

const { values: options } = parseArgs({ options: {
  probe: { type: "string" }, speedscope: { type: "string" }, nodes: { type: "string", default: "200000" },
  rounds: { type: "string", default: "5" },
} });
if (!options.probe) {
  console.error("usage: node speed.mjs --probe PROBE [--speedscope FOLDER] [--nodes N] [--rounds N]");
  process.exit(2);
}
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".wasm": "application/wasm" };
/** Frames of each movement. */
const FRAMES = 90;

const folder = mkdtempSync(join(tmpdir(), "probe-speed-"));
const file = join(folder, "large.folded");
const text = foldedTree(Number(options.nodes));
writeFileSync(file, text);
const child = start(options.probe, ["view", file], { seconds: 900 });
const files = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
  try {
    const body = path === "/large.folded" ? text : readFileSync(join(options.speedscope, path === "/" ? "index.html" : path));
    response.writeHead(200, { "content-type": TYPES[extname(path === "/" ? "index.html" : path)] ?? "text/plain" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
let browser;
try {
  const viewer = await firstLine(child, 120_000);
  await new Promise((done) => files.listen(0, "127.0.0.1", done));
  const other = `http://127.0.0.1:${files.address().port}`;
  const peers = [{ name: "probe", url: viewer, isOpen: ownIsOpen, canvas: "#profile-panel canvas" }];
  if (options.speedscope) {
    peers.push({ name: "speedscope", url: `${other}/#profileURL=${encodeURIComponent(`${other}/large.folded`)}&title=large`, isOpen: peerIsOpen, canvas: "canvas" });
  }
  const results = new Map(peers.map(({ name }) => [name, []]));
  const idle = [];
  const load = [loadavg()[0]];
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const peer of peers) {
      browser = await launch();
      results.get(peer.name).push(await measure(peer));
      await browser.close();
    }
    browser = await launch();
    const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
    idle.push(await page.evaluate(frames, { selector: null, count: FRAMES, movement: "none" }));
    await browser.close();
    load.push(loadavg()[0]);
  }
  report(results, idle, load);
} finally {
  await browser?.close();
  files.close();
  await end(child);
  rmSync(folder, { recursive: true, force: true });
}

/** Runs in the page: is a tree of so many nodes on the canvas? */
function ownIsOpen(nodes) {
  return Number(document.querySelector("#profile-panel canvas")?.dataset.nodes) >= nodes && performance.now();
}
/** Runs in the page: speedscope names the profile in the title when it has it, and draws it in the next frames. */
function peerIsOpen() {
  const canvas = document.querySelector("canvas");
  return /large/.test(document.title) && canvas && canvas.width > 600 && performance.now();
}

async function measure({ url, isOpen, canvas }) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
  await page.goto(url, { waitUntil: "commit" });
  await (await page.waitForFunction(isOpen, Number(options.nodes) * 0.99, { polling: "raf", timeout: 120_000 })).dispose();
  const opened = await page.evaluate(() => new Promise((done) =>
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())))));
  const served = await page.evaluate(() => performance.getEntriesByType("resource").filter(({ name }) => /profile\?|large\.folded/.test(name))
    .reduce((sum, { requestStart, responseEnd }) => sum + responseEnd - requestStart, 0));
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const busy = async () => (await session.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration").value;
  await page.locator(canvas).first().scrollIntoViewIfNeeded();
  const result = { opened, served };
  for (const movement of ["zoom in", "pan", "zoom out"]) {
    const before = await busy();
    result[movement] = await page.evaluate(frames, { selector: canvas, count: FRAMES, movement });
    result[`${movement} busy`] = (1000 * (await busy() - before)) / FRAMES;
  }
  return result;
}

/** Runs in the page: moves by the wheel, a step in each frame, and says how long each frame took. */
function frames({ selector, count, movement }) {
  return new Promise((done) => {
    const canvas = selector && document.querySelector(selector);
    const box = canvas?.getBoundingClientRect();
    const x = box ? box.left + box.width * 0.3 : 0, y = box ? box.top + Math.min(box.height, innerHeight - box.top) * 0.5 : 0;
    const target = canvas && (document.elementFromPoint(x, y) ?? canvas);
    const deltas = [];
    let last = 0;
    const step = (now) => {
      if (last) deltas.push(now - last);
      last = now;
      if (deltas.length >= count) return done(deltas);
      if (movement !== "none") {
        const back = deltas.length % 40 < 20 ? 1 : -1;
        const wheel = { zoom: movement !== "pan", deltaX: movement === "pan" ? 30 * back : 0, deltaY: movement === "zoom in" ? -12 : movement === "zoom out" ? 12 : 0 };
        target.dispatchEvent(new WheelEvent("wheel", { bubbles: true, cancelable: true, composed: true, clientX: x, clientY: y, deltaX: wheel.deltaX, deltaY: wheel.deltaY, ctrlKey: wheel.zoom }));
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
}

function report(results, idle, load) {
  const sorted = (list) => list.toSorted((a, b) => a - b);
  const at = (list, part) => sorted(list)[Math.min(list.length - 1, Math.floor(list.length * part))];
  const smooth = (list) => `${at(list, 0.5).toFixed(1)} / ${at(list, 0.95).toFixed(1)} / ${at(list, 0.99).toFixed(1)}`;
  const rate = (list) => (1000 * list.length) / list.reduce((sum, delta) => sum + delta, 0);
  const names = [...results.keys()];
  console.log(`${options.nodes} nodes, ${(text.length / 1e6).toFixed(1)} MB of folded stacks; ${options.rounds} rounds; load average ${Math.min(...load).toFixed(1)} to ${Math.max(...load).toFixed(1)}`);
  console.log(`\n| | ${names.join(" | ")} | an empty page |\n| --- |${" --- |".repeat(names.length + 1)}`);
  const opened = (name) => results.get(name).map((one) => one.opened);
  console.log(`| from the address to the picture, median (least to most) | ${names.map((name) => `${Math.round(at(opened(name), 0.5))} ms (${Math.round(Math.min(...opened(name)))} to ${Math.round(Math.max(...opened(name)))})`).join(" | ")} | |`);
  const served = (name) => Math.round(at(results.get(name).map((one) => one.served), 0.5));
  console.log(`| thereof until the profile was there, median | ${names.map((name) => `${served(name)} ms`).join(" | ")} | |`);
  for (const movement of ["zoom in", "pan", "zoom out"]) {
    const of = (name) => results.get(name).flatMap((one) => one[movement]);
    console.log(`| ${movement}: ms a frame, median / 95 % / 99 % | ${names.map((name) => smooth(of(name))).join(" | ")} | ${smooth(idle.flat())} |`);
    console.log(`| ${movement}: frames a second | ${names.map((name) => rate(of(name)).toFixed(1)).join(" | ")} | ${rate(idle.flat()).toFixed(1)} |`);
    console.log(`| ${movement}: ms of work a frame | ${names.map((name) => at(results.get(name).map((one) => one[`${movement} busy`]), 0.5).toFixed(1)).join(" | ")} | |`);
  }
}
