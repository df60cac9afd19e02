// A tree on a canvas. Only what is in view and at least half a pixel wide is drawn, whatever the size of the tree.

const rowHeight = 19;
const narrowest = 0.5;

/** A stable number from 0 to 1 for a text. */
function hash(text) {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return ((value ^ (value >>> 13)) >>> 0) / 4294967296;
}

/** Colours of functions: the module gives the hue, the function the shade. The kernel has blue for itself. */
class Palette {
  static hues = [25, 49, 342, 90, 160, 5, 68, 182, 122, 310];

  constructor(dark) {
    this.dark = dark;
    this.cache = new Array(functionCount);
    this.modules = new Map();
    // The heaviest modules come first and get hues far from each other.
    const weights = new Map();
    const { total } = functionTotals(calleeTree(selfWeights(null)));
    for (let fn = 0; fn < functionCount; fn++) {
      if (kindOf(fn) === kinds.user) weights.set(moduleOf(fn), (weights.get(moduleOf(fn)) || 0) + total[fn]);
    }
    [...weights].sort((a, b) => b[1] - a[1]).forEach(([module], at) => this.modules.set(module, at));
  }

  hue(module) {
    return Palette.hues[(this.modules.get(module) ?? 0) % Palette.hues.length];
  }

  color(fn) {
    return (this.cache[fn] ??= this.mix(fn));
  }

  mix(fn) {
    const shade = hash(nameOf(fn));
    const tone = (hue, saturation, light, dark, spread) =>
      `hsl(${hue} ${saturation}% ${(this.dark ? dark : light) + (shade - 0.5) * spread}%)`;
    switch (kindOf(fn)) {
      case kinds.user: return tone(this.hue(moduleOf(fn)) + (shade - 0.5) * 12, this.dark ? 52 : 84, 71, 36, 13);
      case kinds.kernel: return tone(212 + (shade - 0.5) * 22, this.dark ? 44 : 72, 76, 38, 10);
      case kinds.cut: return tone(0, 0, 72, 42, 0);
      default: return tone(220, this.dark ? 10 : 14, 86, 28, 0);
    }
  }
}

class Chart {
  constructor(view, canvas, extent) {
    this.view = view;
    this.canvas = canvas;
    this.extent = extent;
    this.pen = canvas.getContext("2d");
    this.icicle = false;
    this.zoom = 0;
    this.hover = -1;
    this.hits = null;
    this.texts = new Map();
    this.drawn = 0;
  }

  /** Takes the page's colours and fonts. */
  restyle(dark) {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    this.ink = value("--frame-ink");
    this.edge = value("--chart");
    this.soft = value("--soft");
    this.match = value("--match");
    this.matchInk = value("--match-ink");
    this.strong = value("--ink");
    this.font = `12px ${value("--mono")}`;
    this.texts.clear();
    this.palette = new Palette(dark);
  }

  show(tree) {
    this.tree = tree;
    this.zoom = 0;
    this.hover = -1;
    this.resize();
    this.home();
  }

  /** Fits canvas and scroll range to the window, in device pixels. */
  resize() {
    const width = this.view.clientWidth, height = this.view.clientHeight;
    const ratio = window.devicePixelRatio || 1;
    this.width = width;
    this.height = height;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    this.pen.setTransform(this.canvas.width / Math.max(1, width), 0, 0, this.canvas.height / Math.max(1, height), 0, 0);
    this.span = Math.max(height, this.tree.height * rowHeight + 8);
    this.extent.style.height = `${this.span - height}px`;
    this.draw();
  }

  /** Scrolls to the root. */
  home() {
    this.view.scrollTop = this.icicle ? 0 : this.span;
    this.draw();
  }

  /** Top of a row in the view. */
  rowTop(depth) {
    const top = this.icicle ? 4 + depth * rowHeight : this.span - 4 - (depth + 1) * rowHeight;
    return top - this.view.scrollTop;
  }

  depthAt(y) {
    const inside = y + this.view.scrollTop;
    return Math.floor((this.icicle ? inside - 4 : this.span - 4 - inside) / rowHeight);
  }

  /** Horizontal place of a node, in pixels. Callers of the node in zoom take the whole width. */
  place(node) {
    const { tree, zoom } = this;
    const scale = this.width / (tree.total[zoom] || 1);
    if (this.isAbove(node)) return { x: 0, width: this.width };
    return { x: (tree.x[node] - tree.x[zoom]) * scale, width: tree.total[node] * scale };
  }

  isAbove(node) {
    if (this.tree.depth[node] >= this.tree.depth[this.zoom]) return false;
    for (let at = this.zoom; at > 0; at = this.tree.parent[at]) if (this.tree.parent[at] === node) return true;
    return false;
  }

  draw() {
    if (!this.tree || this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      this.paint();
    });
  }

  paint() {
    const { pen, tree, zoom, width, height } = this;
    pen.clearRect(0, 0, width, height);
    pen.font = this.font;
    pen.textBaseline = "middle";
    this.drawn = 0;
    if (!(tree.total[0] > 0)) {
      pen.fillStyle = this.soft;
      pen.textAlign = "center";
      pen.fillText("No samples here", width / 2, height / 2);
      pen.textAlign = "left";
      return;
    }
    for (let at = zoom; at > 0; at = tree.parent[at]) this.frame(tree.parent[at], 0, width, true);
    const scale = width / tree.total[zoom];
    const farthest = this.icicle ? this.depthAt(height) : this.depthAt(0);
    const todo = [zoom];
    while (todo.length) {
      const node = todo.pop();
      this.frame(node, (tree.x[node] - tree.x[zoom]) * scale, tree.total[node] * scale, false);
      if (tree.depth[node] >= farthest) continue;
      for (let at = tree.first[node]; at < tree.first[node + 1]; at++) {
        const child = tree.children[at];
        // The heaviest come first: what follows is narrower still.
        if (tree.total[child] * scale < narrowest) break;
        todo.push(child);
      }
    }
    if (this.hover >= 0) this.outline(this.hover);
    document.documentElement.dataset.drawn = this.drawn;
  }

  frame(node, x, width, above) {
    const y = this.rowTop(this.tree.depth[node]);
    if (y > this.height || y < -rowHeight) return;
    const { pen, tree } = this;
    const fn = tree.fn[node];
    const hit = this.hits?.[fn];
    pen.globalAlpha = above ? 0.45 : this.hits && !hit ? 0.38 : 1;
    pen.fillStyle = hit ? this.match : this.palette.color(fn);
    const gap = width > 3 ? 1 : 0;
    pen.fillRect(x, y, Math.max(narrowest, width - gap), rowHeight - 1);
    this.drawn++;
    if (tree.inlined[node] && width > 6) {
      pen.fillStyle = hit ? this.matchInk : this.ink;
      pen.globalAlpha *= 0.4;
      pen.fillRect(x, y + rowHeight - 3, width - gap, 2);
    }
    pen.globalAlpha = above ? 0.75 : this.hits && !hit ? 0.6 : 1;
    if (width > 24) {
      pen.fillStyle = hit ? this.matchInk : this.ink;
      pen.fillText(this.fit(nameOf(fn), width - 9), x + 4, y + rowHeight / 2);
    }
    pen.globalAlpha = 1;
  }

  outline(node) {
    const { x, width } = this.place(node);
    this.pen.strokeStyle = this.strong;
    this.pen.lineWidth = 1.5;
    this.pen.strokeRect(x + 0.5, this.rowTop(this.tree.depth[node]) + 0.5, Math.max(1, width - 2), rowHeight - 2);
  }

  /** As much of a name as fits; the font has one width for all letters, and other scripts are measured. */
  fit(name, width) {
    this.letter ??= this.pen.measureText("MMMMMMMMMM").width / 10;
    let letters = Math.floor(width / this.letter);
    if (/^[\x20-\x7e]*$/.test(name)) {
      return name.length <= letters ? name : letters > 1 ? `${name.slice(0, letters - 1)}…` : "";
    }
    const signs = [...name.slice(0, letters * 2 + 2)];
    if (signs.length <= letters && this.pen.measureText(name).width <= width) return name;
    while (letters > 1 && this.pen.measureText(signs.slice(0, letters - 1).join("")).width > width - this.letter) letters--;
    return letters > 1 ? `${signs.slice(0, letters - 1).join("")}…` : "";
  }

  /** The node under a point of the view, or -1. */
  nodeAt(x, y) {
    const { tree, zoom } = this;
    const depth = this.depthAt(y);
    if (depth < 0 || x < 0 || x >= this.width || !(tree.total[0] > 0)) return -1;
    let node = zoom;
    if (depth <= tree.depth[zoom]) {
      while (tree.depth[node] > depth) node = tree.parent[node];
      return node;
    }
    const weight = tree.x[zoom] + (x / this.width) * tree.total[zoom];
    while (tree.depth[node] < depth) {
      // Children stand in the order of x: the last that begins before the point.
      let low = tree.first[node], high = tree.first[node + 1] - 1, found = -1;
      while (low <= high) {
        const middle = (low + high) >> 1;
        if (tree.x[tree.children[middle]] <= weight) { found = tree.children[middle]; low = middle + 1; }
        else high = middle - 1;
      }
      if (found < 0 || weight >= tree.x[found] + tree.total[found] || tree.total[found] <= 0) return -1;
      node = found;
    }
    return node;
  }

  /** Scrolls so that the row of a node can be seen. */
  reveal(node) {
    const top = this.rowTop(this.tree.depth[node]);
    if (top < 0) this.view.scrollTop += top - 4;
    else if (top + rowHeight > this.height) this.view.scrollTop += top + rowHeight - this.height + 4;
    this.draw();
  }
}
