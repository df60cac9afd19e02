// A real daemon with a real breach: a service that turns hot in `match_rules`, another whose calls are slow, and the alert
// that a webhook on loopback is sent.

import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { Skip, until } from "./harness.mjs";
import { build, end, start } from "./processes.mjs";

const WORKLOADS = join(dirname(fileURLToPath(import.meta.url)), "../../workloads");
/** How long a service may take to be calm for a whole stretch, where others keep the machine busy. */
const CALM = 90_000;
/** How often a service is started that turns hot without being asked to. */
const ATTEMPTS = 3;
/** The rule that the service breaks when it is hot. */
const HOT = "checkout-cpu";

export class Daemon {
  /** Bodies that the webhook was sent. */
  bodies = [];
  #folder = mkdtempSync(join(tmpdir(), "probe-viewer-"));
  #children = [];
  /** The service that turns hot. */
  #hot;
  #servers = [];

  /** Starts it all, and has the service turn hot as soon as the daemon knows what it is like when it is calm. */
  static async start(probe) {
    if (process.getuid() !== 0) throw new Skip("needs root");
    const daemon = new Daemon();
    try {
      await daemon.#start(probe);
    } catch (error) {
      await daemon.end();
      throw error;
    }
    return daemon;
  }

  async #start(probe) {
    // The server, which is not root, has its way through it.
    chmodSync(this.#folder, 0o755);
    const hot = build(join(WORKLOADS, "hotcold.c"), join(this.#folder, "checkout"));
    const slow = build(join(WORKLOADS, "calls.c"), join(this.#folder, "pusher"));
    const hook = await this.#listen((request, response) => {
      let body = "";
      request.on("data", (data) => { body += data; });
      request.on("end", () => { this.bodies.push(body); response.writeHead(204).end(); });
    });
    const free = await this.#listen(() => undefined);
    await new Promise((done) => this.#servers.pop().close(done));
    this.url = `http://127.0.0.1:${free}`;
    const config = join(this.#folder, "probe.toml");
    writeFileSync(config, configuration(this.#folder, this.url, `http://127.0.0.1:${hook}/hook`));
    const daemon = start(probe, ["daemon", "--config", config], { log: join(this.#folder, "log") });
    this.#children.push(daemon);
    await until("the daemon is ready", async () => {
      if (daemon.exitCode !== null) throw new Error(`it has ended with ${daemon.exitCode}`);
      return (await fetch(`${this.url}/readyz`)).ok;
    }).catch((error) => { throw new Error(`${error.message}\n${this.log()}`); });
    this.#children.push(start(slow, ["sends"]));
    for (let left = ATTEMPTS; !await this.#turnHot(hot); left--) {
      if (left === 1) throw new Error(`the service is said to be hot before it is\n${this.log()}`);
    }
  }

  /** Starts the service anew and has it turn hot. Whether it was calm until then, for all that the daemon knows. */
  async #turnHot(program) {
    await end(this.#hot);
    this.#hot = start(program, ["1500", "1500"]);
    this.#children.push(this.#hot);
    const known = this.#alerts(HOT).length;
    const pid = await until("a calm stretch of the service", async () => {
      if (this.#alerts(HOT).length > known) return -1;
      const { targets } = await (await this.get("/api/v1/targets")).json();
      const { processes } = targets.find(({ name }) => name === "checkout");
      return processes.find((process) => process.calm_stretches > 0)?.pid;
    }, CALM).catch((error) => { throw new Error(`${error.message}\n${this.log()}`); });
    if (pid === -1) return false;
    process.kill(pid, "SIGUSR1");
    return true;
  }

  /** What the webhook was sent of a rule. */
  #alerts(rule) {
    return this.bodies.filter((body) => body.includes(`"${rule}"`));
  }

  async #listen(handler) {
    const server = createServer(handler);
    this.#servers.push(server);
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    return server.address().port;
  }

  log() {
    return readFileSync(join(this.#folder, "log"), "utf8").slice(-1500);
  }

  /** The link of the alert of a rule, as the webhook was sent it. */
  link(rule) {
    const pattern = new RegExp(`${this.url.replaceAll(".", "\\.")}/snapshots/[0-9A-Z]{26}`);
    return until(`the alert of ${rule}`, () =>
      this.#alerts(rule).map((body) => pattern.exec(body)?.[0]).findLast(Boolean), 60_000)
      .catch((error) => { throw new Error(`${error.message}; ${this.bodies.length} others came\n${this.log()}`); });
  }

  get(path) {
    return fetch(this.url + path);
  }

  async end() {
    await Promise.all(this.#children.map(end));
    this.#servers.forEach((server) => server.close());
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function configuration(folder, url, hook) {
  return `
[store]
path = "${join(folder, "store")}"
[serve]
listen = "${url.slice("http://".length)}"
external_url = "${url}"
[sampling]
frequency = 49
window = "10s"
[[target]]
name = "checkout"
match = { exe = "${join(folder, "checkout")}" }
[[target]]
name = "push"
match = { exe = "${join(folder, "pusher")}" }
[[function]]
name = "sends"
group = "vendor"
target = "push"
symbol = "sends"
threshold = "5ms"
[[rule]]
name = "${HOT}"
target = "checkout"
metric = "cpu"
above = 15.0
for = "2s"
keep_firing_for = "10m"
cooldown = "10m"
snapshot = { threads = 2, before = "4s", after = "2s" }
notify = ["hook"]
[[rule]]
name = "push-slow"
target = "push"
metric = "function.p99"
function = "sends"
above = "10ms"
for = "2s"
cooldown = "10m"
snapshot = { threads = 2, before = "3s", after = "1s" }
notify = ["hook"]
[[notify]]
name = "hook"
type = "webhook"
url = "${hook}"
`;
}
