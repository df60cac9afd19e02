// Everything that is clicked and typed.

const chart = new Chart(element("view"), element("chart"), element("extent"));
const state = { dark: false, callers: false, threads: null, history: [], found: null, sort: "self" };
const shownRows = 200;

/** Rebuilds what is shown after other threads, or the other order of stacks, were chosen. */
function rebuild() {
  const self = selfWeights(state.threads);
  const callees = calleeTree(self);
  state.totals = functionTotals(callees);
  state.history = [];
  chart.show(state.callers ? callerTree(self) : callees);
  refresh();
  fillRows();
}

function fillRows() {
  const { self, total } = state.totals;
  const all = chart.tree.total[0];
  const by = state.sort === "self" ? self : total;
  const listed = [];
  for (let fn = 1; fn < functionCount; fn++) {
    const kind = kindOf(fn);
    if (by[fn] > 0 && kind !== kinds.process && kind !== kinds.thread) listed.push(fn);
  }
  listed.sort((a, b) => by[b] - by[a] || total[b] - total[a]);
  element("rows").replaceChildren(...listed.slice(0, shownRows).map((fn) => {
    const row = make("tr", "", "row"), cell = make("td"), dot = make("span", "", "dot");
    const share = (weight) => {
      const made = make("td", formatShare(weight, all), "share");
      made.style.backgroundSize = `${(100 * weight) / all}% 18px`;
      return made;
    };
    dot.style.background = chart.palette.color(fn);
    cell.append(dot, nameOf(fn));
    row.title = [nameOf(fn), moduleOf(fn)].filter(Boolean).join("\n").slice(0, 600);
    row.dataset.fn = fn;
    row.append(cell, share(self[fn]), share(total[fn]));
    return row;
  }));
  element("more").textContent = listed.length > shownRows ? `and ${integer.format(listed.length - shownRows)} more` : "";
  markRows();
}

function markRows() {
  for (const row of element("rows").children) row.classList.toggle("hit", !!state.found?.hits[row.dataset.fn]);
}

/** Brings buttons, path and search in line with the state, and draws. */
function refresh() {
  const press = (id, on) => element(id).setAttribute("aria-pressed", on);
  press("callers", state.callers);
  press("callees", !state.callers);
  press("icicle", chart.icicle);
  press("flame", !chart.icicle);
  press("by-self", state.sort === "self");
  press("by-total", state.sort === "total");
  press("list", !element("functions").hidden);
  element("back").disabled = !state.history.length;
  element("reset").disabled = chart.zoom === 0;
  const { tree } = chart;
  const path = [];
  for (let node = chart.zoom; node > 0; node = tree.parent[node]) path.unshift(nameOf(tree.fn[node]));
  const text = path.length ? path.join(" › ") : "Click a frame to zoom in";
  element("path").textContent = text.length > 400 ? `… ${text.slice(-400)}` : text;
  const found = state.found;
  chart.hits = found ? found.hits : null;
  const input = element("search");
  input.classList.toggle("active", !!found);
  input.setAttribute("aria-invalid", !!found && !found.valid);
  element("matched").textContent = !found ? "" : found.count
    ? `${formatShare(matchedWeight(tree, found.hits, chart.zoom), tree.total[chart.zoom])} in ${found.count}` : "no match";
  Object.assign(document.documentElement.dataset, {
    zoom: nameOf(tree.fn[chart.zoom]).slice(0, 200),
    direction: chart.icicle ? "icicle" : "flame",
    order: state.callers ? "callers" : "callees",
    weight: tree.total[0],
  });
  chart.draw();
}

function zoomTo(node, remember = true) {
  if (node < 0 || node === chart.zoom) return;
  if (remember) state.history.push(chart.zoom);
  chart.zoom = node;
  hideTip();
  refresh();
  chart.reveal(node);
}

function back() {
  if (state.history.length) zoomTo(state.history.pop(), false);
  refresh();
}

function reset() {
  zoomTo(0);
  state.history = [];
  refresh();
  chart.home();
}

function find(text) {
  element("search").value = text;
  state.found = search(text);
  refresh();
  markRows();
}

function hideTip() {
  chart.hover = -1;
  element("tip").hidden = true;
}

/** Shows what is known of a node, next to a point of the window. */
function showTip(node, x, y) {
  const { tree } = chart;
  const fn = tree.fn[node], all = tree.total[0];
  const tip = element("tip");
  const name = nameOf(fn);
  const parts = [make("b", name.length > 500 ? `${name.slice(0, 500)}…` : name)];
  if (fileOf(fn)) {
    const line = data.functions.line[fn], lines = data.functions.lines[fn];
    parts.push(make("p", fileOf(fn) + (line ? `:${line}` : "") + (lines > 1 ? `  (hottest of ${lines} lines)` : "")));
  }
  const kind = { [kinds.kernel]: "kernel", [kinds.process]: "process", [kinds.thread]: "thread" }[kindOf(fn)];
  const where = [moduleOf(fn), tree.inlined[node] ? "inlined" : "", kind].filter(Boolean).join(" · ");
  if (where) parts.push(make("p", where.slice(0, 500)));
  const list = make("dl");
  const row = (label, weight, whole = all) =>
    list.append(make("dt", label), make("dd", `${formatShare(weight, whole)}  ·  ${formatWeight(weight)}`));
  row("Here", tree.total[node]);
  if (chart.zoom && !chart.isAbove(node)) row("Of the zoom", tree.total[node], tree.total[chart.zoom]);
  if (!state.callers) row("Itself", tree.self[node]);
  if (node && kindOf(fn) <= kinds.kernel) {
    row("Function, total", state.totals.total[fn]);
    row("Function, self", state.totals.self[fn]);
  }
  parts.push(list);
  tip.replaceChildren(...parts);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 14 + width > innerWidth - 6 ? Math.max(6, x - width - 10) : x + 14;
  const top = y + 16 + height > innerHeight - 6 ? Math.max(6, y - height - 10) : y + 16;
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
  chart.hover = node;
  chart.draw();
}

function pointed(event) {
  const box = element("chart").getBoundingClientRect();
  return chart.nodeAt(event.clientX - box.left, event.clientY - box.top);
}

/** Moves the marked frame: to its caller, its heaviest callee, or a neighbour. */
function move(key) {
  const { tree } = chart;
  let node = chart.hover >= 0 ? chart.hover : chart.zoom;
  const outward = chart.icicle ? "ArrowDown" : "ArrowUp";
  if (chart.hover >= 0 && (key === "ArrowUp" || key === "ArrowDown")) {
    if (key !== outward) node = tree.parent[node];
    else if (tree.first[node] < tree.first[node + 1]) node = tree.children[tree.first[node]];
  } else if (chart.hover >= 0 && node > 0) {
    const parent = tree.parent[node];
    const siblings = tree.children.subarray(tree.first[parent], tree.first[parent + 1]);
    const next = siblings[siblings.indexOf(node) + (key === "ArrowRight" ? 1 : -1)];
    if (next !== undefined) node = next;
  }
  if (!(tree.total[node] > 0)) return;
  chart.reveal(node);
  const box = element("chart").getBoundingClientRect();
  const { x, width } = chart.place(node);
  const middle = Math.min(Math.max(x + Math.min(width / 2, 120), 0), chart.width);
  showTip(node, box.left + middle, box.top + chart.rowTop(tree.depth[node]) + rowHeight);
}

function theme(dark) {
  state.dark = dark;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  chart.restyle(dark);
}

const actions = {
  direction(icicle) { chart.icicle = icicle; hideTip(); chart.resize(); chart.home(); refresh(); },
  order(callers) { state.callers = callers; hideTip(); rebuild(); },
  list() { element("functions").hidden = !element("functions").hidden; chart.resize(); refresh(); },
  theme() { theme(!state.dark); fillLegend(chart.palette); fillRows(); refresh(); },
  help() { element("keys").showModal(); },
  sort(by) { state.sort = by; fillRows(); refresh(); },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || element("keys").open) return;
  const typing = event.target === element("search");
  if (event.key === "Escape" && (typing || state.found)) {
    find("");
    element("view").focus();
  } else if (typing) {
    if (event.key === "Enter") element("view").focus();
    return;
  } else if (event.key === "Escape" || event.key === "Backspace") back();
  else if (event.key === "/") { element("search").focus(); element("search").select(); }
  else if (event.key === "?") actions.help();
  else if (event.key === "0" || event.key === "Home") reset();
  else if (event.key === "i") actions.direction(!chart.icicle);
  else if (event.key === "r") actions.order(!state.callers);
  else if (event.key === "t") element("thread").focus();
  else if (event.key === "f") actions.list();
  else if (event.key === "d") actions.theme();
  else if (event.target === element("thread") || event.target.tagName === "BUTTON") return;
  else if (event.key.startsWith("Arrow")) move(event.key);
  else if (event.key === "Enter" && chart.hover >= 0) zoomTo(chart.hover);
  else return;
  event.preventDefault();
}

function wire() {
  const click = (id, act) => element(id).addEventListener("click", act);
  click("callees", () => actions.order(false));
  click("callers", () => actions.order(true));
  click("flame", () => actions.direction(false));
  click("icicle", () => actions.direction(true));
  click("by-self", () => actions.sort("self"));
  click("by-total", () => actions.sort("total"));
  click("back", back);
  click("reset", reset);
  click("list", actions.list);
  click("theme", actions.theme);
  click("help", actions.help);
  click("chart", (event) => zoomTo(pointed(event)));
  click("rows", (event) => {
    const row = event.target.closest("tr");
    const name = row && nameOf(row.dataset.fn).replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    if (row) find(state.found?.hits[row.dataset.fn] ? "" : `^${name}$`);
  });
  element("search").addEventListener("input", (event) => find(event.target.value));
  element("thread").addEventListener("change", (event) => {
    const value = event.target.value;
    state.threads = value === "" ? null : new Set(value.split(",").map(Number));
    hideTip();
    rebuild();
  });
  element("view").addEventListener("mousemove", (event) => {
    const node = pointed(event);
    element("chart").style.cursor = node >= 0 ? "pointer" : "default";
    if (node >= 0) showTip(node, event.clientX, event.clientY);
    else if (chart.hover >= 0) { hideTip(); chart.draw(); }
  });
  element("view").addEventListener("mouseleave", () => { hideTip(); chart.draw(); });
  element("view").addEventListener("scroll", () => chart.draw(), { passive: true });
  window.addEventListener("keydown", onKey);
  new ResizeObserver(() => chart.tree && chart.resize()).observe(element("view"));
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", () => { if (scheme.matches !== state.dark) actions.theme(); });
}

fillHeader();
fillThreads();
theme(matchMedia("(prefers-color-scheme: dark)").matches);
fillLegend(chart.palette);
wire();
rebuild();
element("view").focus({ preventScroll: true });

/** For scripts and tests: where the first drawn frame whose name contains `text` is, in the window. */
window.flamegraph = {
  locate(text) {
    const { tree } = chart;
    const box = element("chart").getBoundingClientRect();
    for (let node = 0; node < tree.parent.length; node++) {
      if (!(tree.total[node] > 0) || !nameOf(tree.fn[node]).includes(text)) continue;
      const { x, width } = chart.place(node);
      const top = chart.rowTop(tree.depth[node]);
      if (x + width <= 0 || x >= chart.width || width < 1 || top < 0 || top >= chart.height) continue;
      return { x: box.left + x, y: box.top + top, width, height: rowHeight, weight: tree.total[node] };
    }
    return null;
  },
};
