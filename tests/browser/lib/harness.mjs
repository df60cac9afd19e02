// What a test is, how it says what it found, and how it waits. The lines are those of Rust's harness, which `cargo xtask
// test` counts.

/** Thrown by a test that finds that it cannot run here. */
export class Skip extends Error {}

/** Holds, or the test fails. */
export function check(holds, message) {
  if (!holds) throw new Error(typeof message === "function" ? message() : message);
}

/** Asks until there is an answer that is neither false nor nothing; `what` says what was waited for. */
export async function until(what, ask, limit = 20_000) {
  const deadline = Date.now() + limit;
  let last;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
      last = answer;
    } catch (error) {
      last = error.message.split("\n")[0];
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${limit / 1000} s (last: ${JSON.stringify(last)})`);
    await new Promise((done) => setTimeout(done, 30));
  }
}

/** How often a test is run until it fails. */
const ATTEMPTS = 3;

/** Runs tests one after the other; those whose name has `filter`. What others on the machine may have disturbed is run
 * again, and says so: the last time in scenes that are made anew by `renew`, because they may be what is amiss. Returns whether
 * none failed. */
export async function run(tests, { filter = "", prepare, renew, each }) {
  const chosen = tests.filter(({ name }) => name.includes(filter));
  console.log(`running ${chosen.length} tests`);
  const counts = { ok: 0, failed: 0, ignored: 0 };
  for (const { name, test, needs = [] } of chosen) {
    const began = Date.now();
    let outcome = "ok";
    let reason = "";
    try {
      for (let left = ATTEMPTS; left > 0; left--) {
        try {
          for (const need of needs) await prepare(need);
          await within(`the test ${name}`, each(test), 90_000);
          break;
        } catch (error) {
          if (error instanceof Skip || left === 1) throw error;
          console.log(`test ${name} ... failed once: ${error.message.replaceAll("\n", " ")}`);
          if (left === 2) await renew(needs);
        }
      }
      counts.ok++;
    } catch (error) {
      if (error instanceof Skip) {
        outcome = `ignored (${error.message})`;
        counts.ignored++;
      } else {
        outcome = "FAILED";
        reason = process.env.PROBE_TEST_TRACE ? error.stack : error.message;
        counts.failed++;
      }
    }
    const took = outcome === "ok" && process.env.PROBE_TEST_TIMES ? ` # ${Date.now() - began} ms` : "";
    console.log(`test ${name} ... ${outcome}${took}`);
    if (reason) console.log(reason.replace(/^/gm, "    "));
  }
  console.log(`test result: ${counts.failed ? "FAILED" : "ok"}. ${counts.ok} passed; ${counts.failed} failed; ${counts.ignored} ignored`);
  return counts.failed === 0;
}

/** A promise that must be done in time. */
export function within(what, promise, limit) {
  let timer;
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Error(`${what} took longer than ${limit / 1000} s`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
