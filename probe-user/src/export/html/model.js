// The profile of this page, and trees made of it.

const data = JSON.parse(document.getElementById("data").textContent);
const kinds = { user: 0, kernel: 1, process: 2, thread: 3, cut: 4, root: 5 };
const functionCount = data.functions.name.length;

const nameOf = (fn) => data.strings[data.functions.name[fn]];
const moduleOf = (fn) => data.strings[data.functions.module[fn]];
const fileOf = (fn) => data.strings[data.functions.file[fn]];
const kindOf = (fn) => data.functions.kind[fn];

/** What the chosen threads did at each node of the whole tree: weight that ended there. */
function selfWeights(threads) {
  const self = new Float64Array(data.nodes.parent.length);
  const { thread, node, weight } = data.weights;
  for (let i = 0; i < node.length; i++) {
    if (!threads || threads.has(thread[i])) self[node[i]] += weight[i];
  }
  return self;
}

/** A tree to draw: `parent`, `fn`, `inlined`, `self`, `total`, `depth`, `x` per node, children heaviest first. */
function finish(tree) {
  const count = tree.parent.length;
  tree.total = Float64Array.from(tree.self);
  tree.depth = new Int32Array(count);
  const first = new Int32Array(count + 1);
  for (let node = count - 1; node > 0; node--) {
    tree.total[tree.parent[node]] += tree.total[node];
    first[tree.parent[node] + 1]++;
  }
  for (let node = 0; node < count; node++) first[node + 1] += first[node];
  const next = first.slice();
  const children = new Int32Array(Math.max(0, count - 1));
  tree.height = 1;
  for (let node = 1; node < count; node++) {
    children[next[tree.parent[node]]++] = node;
    tree.depth[node] = tree.depth[tree.parent[node]] + 1;
    if (tree.total[node] > 0) tree.height = Math.max(tree.height, tree.depth[node] + 1);
  }
  tree.x = new Float64Array(count);
  tree.first = first;
  tree.children = children;
  const heavier = (a, b) => tree.total[b] - tree.total[a] || (nameOf(tree.fn[a]) < nameOf(tree.fn[b]) ? -1 : 1);
  for (let node = 0; node < count; node++) {
    if (first[node + 1] - first[node] > 1) children.subarray(first[node], first[node + 1]).sort(heavier);
    let x = tree.x[node];
    for (let at = first[node]; at < first[node + 1]; at++) {
      tree.x[children[at]] = x;
      x += tree.total[children[at]];
    }
  }
  return tree;
}

/** The tree from callers to callees. */
function calleeTree(self) {
  return finish({ parent: data.nodes.parent, fn: data.nodes.function, inlined: data.nodes.inlined, self });
}

/** The tree from the functions that ran to their callers, merged. What is too light to be seen is not followed. */
function callerTree(self) {
  const { parent, function: fn, inlined } = data.nodes;
  const tree = { parent: [0], fn: [0], inlined: [0], self: [0] };
  let all = 0;
  const start = [];
  for (let node = 1; node < self.length; node++) {
    if (self[node] > 0) { start.push({ node, weight: self[node] }); all += self[node]; }
  }
  const least = all / 20000;
  const todo = [{ at: 0, members: start, weight: all }];
  while (todo.length) {
    const { at, members, weight } = todo.pop();
    if (at > 0 && weight < least) { tree.self[at] = weight; continue; }
    const groups = new Map();
    for (const member of members) {
      if (member.node === 0) { tree.self[at] += member.weight; continue; }
      const key = fn[member.node];
      let group = groups.get(key);
      if (!group) {
        group = { at: tree.parent.length, members: [], weight: 0 };
        groups.set(key, group);
        tree.parent.push(at);
        tree.fn.push(key);
        tree.inlined.push(inlined[member.node]);
        tree.self.push(0);
        todo.push(group);
      }
      group.weight += member.weight;
      group.members.push({ node: parent[member.node], weight: member.weight });
    }
  }
  return finish(tree);
}

/** Weight in each function itself, and in it and what it called; recursion counts once. */
function functionTotals(tree) {
  const self = new Float64Array(functionCount), total = new Float64Array(functionCount);
  const open = new Int32Array(functionCount);
  const todo = [0];
  while (todo.length) {
    const node = todo.pop();
    if (node < 0) { open[tree.fn[~node]]--; continue; }
    const fn = tree.fn[node];
    self[fn] += tree.self[node];
    if (open[fn]++ === 0) total[fn] += tree.total[node];
    todo.push(~node);
    for (let at = tree.first[node]; at < tree.first[node + 1]; at++) {
      if (tree.total[tree.children[at]] > 0) todo.push(tree.children[at]);
    }
  }
  return { self, total };
}

/** Which functions a search finds; `null` for none asked for. A broken expression is searched for as it stands. */
function search(text) {
  if (!text) return null;
  let pattern, valid = true;
  try {
    pattern = new RegExp(text, "iu");
  } catch {
    try { pattern = new RegExp(text, "i"); } catch { valid = false; }
  }
  const lower = text.toLowerCase();
  const hits = new Uint8Array(functionCount);
  let count = 0;
  for (let fn = 1; fn < functionCount; fn++) {
    const name = nameOf(fn);
    if (pattern ? pattern.test(name) : name.toLowerCase().includes(lower)) { hits[fn] = 1; count++; }
  }
  return { hits, count, valid };
}

/** Weight below `from` that has a found function on its stack. */
function matchedWeight(tree, hits, from) {
  let matched = 0;
  const todo = [from];
  while (todo.length) {
    const node = todo.pop();
    if (hits[tree.fn[node]]) { matched += tree.total[node]; continue; }
    for (let at = tree.first[node]; at < tree.first[node + 1]; at++) todo.push(tree.children[at]);
  }
  return matched;
}

const integer = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function formatTime(ms) {
  if (ms >= 60000) return `${(ms / 60000).toFixed(1)} min`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 1 ? `${ms.toFixed(1)} ms` : `${(ms * 1000).toFixed(0)} µs`;
}

/** A weight with its unit, and the CPU time that it stands for. */
function formatWeight(weight) {
  if (data.unit === "microseconds") return formatTime(weight / 1000);
  if (data.unit === "bytes") {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (weight >= 1024 && at < units.length - 1) { weight /= 1024; at++; }
    return `${at ? weight.toFixed(1) : weight} ${units[at]}`;
  }
  const samples = `${integer.format(weight)} ${weight === 1 ? "sample" : "samples"}`;
  return data.periodMs > 0 ? `${samples} ≈ ${formatTime(weight * data.periodMs)}` : samples;
}

function formatShare(part, whole) {
  const percent = whole > 0 ? (100 * part) / whole : 0;
  return `${percent.toFixed(percent >= 99.95 || percent === 0 ? 0 : percent < 0.095 ? 3 : percent < 10 ? 2 : 1)}%`;
}
