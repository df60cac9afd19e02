// What stands around the chart and changes little: the header, the choice of threads, the legend.

const element = (id) => document.getElementById(id);

/** A new element with text; names only ever become text. */
function make(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fillHeader() {
  element("title").title = data.title;
  const facts = [];
  if (data.startedMs > 0) facts.push(new Date(data.startedMs).toISOString().slice(0, 19).replace("T", " ") + " UTC");
  if (data.durationMs > 0) facts.push(formatTime(data.durationMs));
  if (data.sampler) facts.push(data.frequency ? `${data.sampler} at ${data.frequency} Hz` : data.sampler);
  facts.push(`${integer.format(data.samples)} samples`);
  facts.push(`${data.threads.length} ${data.threads.length === 1 ? "thread" : "threads"}`);
  if (data.host) facts.push(`host ${data.host}`);
  if (data.kernel) facts.push(`Linux ${data.kernel}`);
  element("facts").textContent = element("facts").title = facts.join("  ·  ");
  const notes = (list, label) => {
    if (!list.length) return;
    const all = list.reduce((sum, [, count]) => sum + count, 0);
    const note = make("span", `${label} ${integer.format(all)}`, "note");
    note.title = list.map(([reason, count]) => `${reason}: ${integer.format(count)}`).join("\n");
    if (list.length === 1) note.textContent += ` (${list[0][0]})`;
    element("notes").append(note);
  };
  notes(data.losses, "lost");
  notes(data.cut, "stacks cut");
}

function fillThreads() {
  const weights = new Float64Array(data.threads.length);
  data.weights.thread.forEach((thread, at) => (weights[thread] += data.weights.weight[at]));
  const all = weights.reduce((sum, weight) => sum + weight, 0);
  const select = element("thread");
  const option = (value, text) => {
    const made = make("option", text);
    made.value = value;
    return made;
  };
  const threads = data.threads.length === 1 ? "1 thread" : `All ${data.threads.length} threads`;
  select.append(option("", threads));
  const processes = new Map();
  data.threads.forEach((thread, at) => {
    const key = `${thread.pid} ${thread.process}`;
    if (!processes.has(key)) processes.set(key, { thread, members: [], weight: 0 });
    processes.get(key).members.push(at);
    processes.get(key).weight += weights[at];
  });
  for (const { thread, members, weight } of [...processes.values()].sort((a, b) => b.weight - a.weight)) {
    const group = make("optgroup");
    group.label = thread.pid ? `${thread.process} (pid ${thread.pid})` : thread.process;
    if (processes.size > 1 && members.length > 1) {
      group.append(option(members.join(","), `${formatShare(weight, all)}  the whole process`));
    }
    for (const at of members.sort((a, b) => weights[b] - weights[a])) {
      const { name, tid } = data.threads[at];
      group.append(option(String(at), `${formatShare(weights[at], all)}  ${name || "thread"} · ${tid}`));
    }
    select.append(group);
  }
}

function fillLegend(palette) {
  const entries = [];
  const ranked = [...palette.modules.keys()].slice(0, 3);
  for (const module of ranked) {
    const fn = data.functions.kind.findIndex((kind, fn) => kind === kinds.user && moduleOf(fn) === module);
    const name = module.split("/").pop() || "no module";
    entries.push([name.length > 24 ? `${name.slice(0, 23)}…` : name, palette.color(fn)]);
  }
  const kernel = data.functions.kind.indexOf(kinds.kernel);
  if (kernel >= 0) entries.push(["kernel", palette.color(kernel)]);
  element("legend").replaceChildren(...entries.map(([text, color]) => {
    const entry = make("span"), mark = make("i");
    mark.style.background = color;
    entry.append(mark, text);
    return entry;
  }));
}
