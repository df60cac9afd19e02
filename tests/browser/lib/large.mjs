// A large profile, the same every time: folded stacks whose tree has just so many nodes.

/** The text of a tree of `nodes` nodes without its root: wide at the top, with deep and narrow parts, and names as real ones are. */
export function foldedTree(nodes) {
  let seed = 20_260_101;
  const random = (below) => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const parents = [-1], depths = [0], names = ["service"];
  for (let node = 1; node < nodes; node++) {
    // Chains, as calls are, that begin near the top.
    const parent = depths[node - 1] < 30 && random(10) < 9 ? node - 1 : random(Math.min(node, 4000));
    parents.push(parent);
    depths.push(depths[parent] + 1);
    // Siblings of one name would be one node.
    names.push(`${WORDS[random(WORDS.length)]}_${node % 50_000}`);
  }
  const lines = [];
  for (let node = 0; node < nodes; node++) {
    const path = [];
    for (let at = node; at >= 0; at = parents[at]) path.push(names[at]);
    if (node + 1 >= nodes || parents[node + 1] !== node) lines.push(`${path.reverse().join(";")} ${1 + random(random(20) === 0 ? 400 : 12)}`);
  }
  return `${lines.join("\n")}\n`;
}

const WORDS = ["http", "parse", "decode", "route", "auth", "cache", "query", "plan", "scan", "join", "sort", "merge", "encode",
  "flush", "retry", "lock", "alloc", "copy", "hash", "compress", "render", "price", "order", "ledger"];
