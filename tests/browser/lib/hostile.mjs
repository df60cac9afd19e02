// Profiles whose names are what an attacker would choose: markup, scripts, control characters, text that runs backwards, and
// names of a megabyte.

export const NAMES = {
  markup: "<img src=x onerror=\"window.isOwned=1;alert(1)\"><b>bold</b>",
  script: "</script><script>window.isOwned=1</script><style>*{display:none}</style>",
  template: "{{constructor.constructor('window.isOwned=1')()}} ${window.isOwned=1} javascript:window.isOwned=1",
  turned: "pay_\u202e\u2066elif\u2069_txt.exe\u202d\u200f\u061c",
  control: "bell\u0007_esc\u001b[31mred\u001b[0m_tab\there_line\nbreak_nul\u0000_del\u007f_c1\u009b",
  stacked: `zalgo${"\u0301".repeat(300)}`,
  invisible: "in\u200bvis\u00adi\ufeffble\u{e0041}",
  long: `megabyte_${"x".repeat(1 << 20)}`,
  wide: "漢字".repeat(200),
};

/** As `probe record -o FILE.json` writes it, with the names wherever a name can be. */
export function hostileProfile() {
  const names = Object.values(NAMES);
  const locations = names.map((name, at) => ({
    kind: "user", module: 0, address: 4096 + 16 * at,
    lines: [{ function: name, file: name.slice(0, 4000), line: at + 1 }],
  }));
  locations.push({ kind: "user", module: 0, address: 16, lines: [{ function: "main", file: "main.c", line: 1 }] });
  const main = locations.length - 1;
  const stacks = names.map((_, at) => ({ locations: [at, main], truncated: null }));
  stacks.push({ locations: [...names.keys(), main], truncated: "<b>cut</b>" });
  const threads = names.map((name, at) => ({ process: 0, tid: 100 + at, name: name.slice(0, 4000) }));
  const samples = stacks.flatMap((_, stack) => Array.from({ length: 5 }, (_, step) => ({
    thread: stack % threads.length, stack, time_ns: 10_000_000 * (stack * 5 + step), count: 1, value: 10_000_000, state: "running",
  })));
  return {
    format: "probe-profile", version: 1,
    profile: {
      header: {
        event: "cpu", unit: "nanoseconds", sampler: "cpu-clock", frequency: 99, period: 10_000_000, started_at_ns: 1_770_091_506_000_000_000,
        duration_ns: 2_000_000_000, host: NAMES.markup, kernel: "6.1.0",
      },
      processes: [{ pid: 42, name: NAMES.script, exe: NAMES.markup, cmdline: NAMES.template }],
      threads,
      modules: [{ path: `/tmp/${NAMES.markup}.so`, build_id: "00", memory_start: 4096, memory_limit: 1 << 30, file_offset: 0 }],
      locations, stacks, samples,
      losses: { [NAMES.markup]: 3 },
    },
  };
}
