// Programs that the tests start. Each ends with the test, and by itself should the test be killed.

import { spawn, execFileSync } from "node:child_process";
import { accessSync, constants, createWriteStream } from "node:fs";
import { delimiter, join } from "node:path";

import { Skip } from "./harness.mjs";

/** Where a program is; skips the test where there is none. */
export function need(program) {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return join(folder, program);
    } catch {
      // The next folder may have it.
    }
  }
  throw new Skip(`${program} is not installed`);
}

const running = new Set();
// `timeout` hands this signal on to what it runs.
process.on("exit", () => running.forEach((child) => child.kill("SIGTERM")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

/** Starts a program for at most `seconds`; its standard error goes to `log`. */
export function start(program, parameters, { log, seconds = 1500 } = {}) {
  // In a session of its own: a busy machine shares its processors between sessions, whatever else runs in this one.
  const child = spawn("timeout", ["--kill-after=5", String(seconds), program, ...parameters], { stdio: ["ignore", "pipe", "pipe"], detached: true });
  running.add(child);
  child.on("exit", () => running.delete(child));
  if (log) child.stderr.pipe(createWriteStream(log));
  else child.stderr.resume();
  return child;
}

/** The first line that it prints. */
export function firstLine(child, limit = 20_000) {
  return new Promise((done, refuse) => {
    let text = "";
    const timer = setTimeout(() => refuse(new Error(`${child.spawnargs.join(" ")} printed nothing in time`)), limit);
    child.on("exit", (code) => { clearTimeout(timer); refuse(new Error(`${child.spawnargs.join(" ")} has ended with ${code}`)); });
    child.stdout.on("data", (data) => {
      text += data;
      if (!text.includes("\n")) return;
      clearTimeout(timer);
      done(text.slice(0, text.indexOf("\n")));
    });
  });
}

/** Ends it, and waits until it is gone. */
export async function end(child) {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.on("exit", done));
  child.kill("SIGTERM");
  await gone;
}

/** Builds a workload as the tests on the kernel do. */
export function build(source, out) {
  execFileSync(need("gcc"), ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o", out, source]);
  return out;
}
