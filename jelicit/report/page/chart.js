// --- one setting, all methods: value and interval -----------------------------------------------

const WIDE = { line: 26, middle: 13, heading: 30 }; // pixels: a method, its marks, a group's name
const NARROW = { line: 42, middle: 29, heading: 34 }; // names above their marks
const SIGNS = {
  oracle: "with labels of the column itself: an oracle.",
  easy: "on the easy labelled set.",
};
const SHAPES = ["circle", "triangle", "square", "diamond"];

/** Methods down, a measured value across; what to show is chosen facet by facet. */
class Chart {
  constructor(place, table, about, names) {
    Object.assign(this, { place, table, about, names });
    this.series = this.seriesValues();
    this.chosen = new Map(); // facet -> value
    this.measure = about.measures[0];
    this.build();
    this.choose();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  seriesValues() {
    const column = this.table.column(this.about.series);
    if (!column) return [null];
    return [...ranksOf(column.values, Object.keys(this.names[this.about.series] || {})).keys()];
  }

  build() {
    this.selects = this.about.facets.map((facet) => {
      const { field, select } = makeSelect(facetName(facet), [], "", (text) => {
        this.chosen.set(facet, JSON.parse(text));
        this.choose();
      });
      return { facet, field, select };
    });
    const fields = this.selects.map(({ field }) => field);
    if (this.about.measures.length > 1) fields.push(this.measureField());
    this.legend = make("div", { class: "legend" });
    this.plot = make("div", { class: "plot" });
    this.note = make("p", { class: "note" });
    this.tip = make("div", { class: "tip", role: "status", hidden: true });
    const hint = "Point at a line, or walk with Tab and the arrow keys, for its numbers.";
    this.place.append(make("div", { class: "fields" }, fields), this.legend, this.plot);
    this.place.append(this.note, make("p", { class: "note" }, hint));
  }

  measureField() {
    const entries = this.about.measures.map((name) => [name, columnName(name)]);
    return makeSelect("Value", entries, this.measure, (name) => {
      this.measure = name;
      this.draw();
    }).field;
  }

  /** Facet by facet: what can still be chosen, and the rows that are left. */
  choose() {
    let rows = Uint32Array.from({ length: this.table.length }, (_, row) => row);
    for (const { facet, field, select } of this.selects) {
      const column = this.table.column(facet);
      const none = this.about.not_needed[facet] ?? null;
      const found = facetValues(column, rows, none);
      const kept = this.chosen.get(facet);
      const value = found.includes(kept) ? kept : found[0];
      this.chosen.set(facet, value);
      const entries = found.map((v) => [JSON.stringify(v), this.nameOf(facet, v)]);
      setOptions(select, entries, JSON.stringify(value));
      field.hidden = found.length < 2;
      if (found.length) rows = rows.filter((row) => [value, null, none].includes(column.at(row)));
    }
    this.rows = rows;
    this.draw();
  }

  nameOf(column, value) {
    const names = this.names[column];
    return names && Object.hasOwn(names, value) ? names[value] : String(value ?? "none");
  }

  /** method -> series -> {values, low, high}: one of each per seed (ends only where there are). */
  points() {
    const names = ["method", this.about.series, this.measure];
    names.push(`${this.measure}_low`, `${this.measure}_high`);
    const columns = names.map((name) => this.table.column(name));
    const points = new Map();
    for (const row of this.rows) {
      const [method, series, value, low, high] = columns.map((c) => (c ? c.at(row) : null));
      if (value === null) continue;
      if (!points.has(method)) points.set(method, new Map());
      const own = points.get(method);
      if (!own.has(series)) own.set(series, { values: [], low: [], high: [] });
      const point = own.get(series);
      point.values.push(value);
      if (low !== null) point.low.push(low);
      if (high !== null) point.high.push(high);
    }
    return points;
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width) return;
    const points = this.points();
    this.tip.hidden = true;
    this.drawLegend(points);
    const methods = this.about.methods.filter(([key]) => points.has(key));
    if (methods.length === 0) return this.plot.replaceChildren("No row has this value here.");
    const font = `13px ${getComputedStyle(this.plot).fontFamily}`;
    const longest = Math.max(...methods.map(([, name]) => textWidth(name, font)));
    this.size = width < 560 ? NARROW : WIDE;
    const scale = this.scale(points, this.size === WIDE ? longest + 30 : 8, width - 14);
    const groups = [...new Set(methods.map(([, , group]) => group))];
    const height = methods.length * this.size.line + groups.length * this.size.heading + 40;
    const picture = makeSvg("svg", { width, height, role: "group", "aria-label": "Chart" });
    picture.append(this.axis(scale, height - 36));
    let top = 0;
    for (const group of groups) {
      picture.append(makeSvg("text", { class: "group", x: 0, y: top + 20 }, group));
      top += this.size.heading;
      for (const [key, name] of methods.filter((m) => m[2] === group)) {
        picture.append(this.method(name, points.get(key), top, scale));
        top += this.size.line;
      }
    }
    this.plot.replaceChildren(picture, this.tip);
    walkable([...picture.querySelectorAll(".line")]);
  }

  /** Value -> pixel. */
  scale(points, left, right) {
    const all = [...points.values()].flatMap((own) => [...own.values()]);
    const values = all.flatMap((p) => [...p.values, mean(p.low), mean(p.high)]);
    const known = values.filter((v) => v !== null);
    const fraction = known.every((v) => v >= 0 && v <= 1);
    const low = fraction
      ? Math.min(0.4, Math.floor(Math.min(...known) * 10) / 10)
      : Math.min(...known);
    const high = fraction ? 1 : Math.max(...known);
    const per = (right - left) / (high - low || 1);
    return { low, high, fraction, left, right, at: (v) => left + (v - low) * per };
  }

  axis(scale, bottom) {
    const group = makeSvg("g", { class: "axis", "aria-hidden": "true" });
    const steps = Math.max(2, Math.min(8, Math.floor((scale.right - scale.left) / 55)));
    for (const value of ticks(scale.low, scale.high, steps)) {
      const x = scale.at(value);
      group.append(makeSvg("line", { x1: x, x2: x, y1: 8, y2: bottom }));
      group.append(makeSvg("text", { x, y: bottom + 16 }, String(value)));
    }
    if (this.hasChance() && scale.low <= 0.5) {
      const x = scale.at(0.5);
      group.append(makeSvg("line", { class: "chance", x1: x, x2: x, y1: 8, y2: bottom }));
    }
    const middle = (scale.left + scale.right) / 2;
    group.append(makeSvg("text", { x: middle, y: bottom + 33 }, columnName(this.measure)));
    return group;
  }

  hasChance() {
    return this.measure === "auroc" || this.measure === "accuracy";
  }

  /** One method: its name, and per series seeds, interval and mean. */
  method(name, own, top, scale) {
    const middle = top + this.size.middle;
    const said = this.series.filter((s) => own.has(s)).map((s) => this.sentence(s, own.get(s)));
    const label = `${name}: ${said.join("; ")}`;
    const line = makeSvg("g", { class: "line", role: "img", "aria-label": label });
    const bottom = top + this.size.line;
    const band = { x: 0, y: top, width: scale.right + 14, height: this.size.line };
    line.append(makeSvg("rect", { class: "band", ...band }));
    line.append(
      makeSvg("text", { class: "name", x: 10, y: middle + (this.size === WIDE ? 4.5 : -12) }, name)
    );
    const drawn = this.series.filter((s) => own.has(s));
    drawn.forEach((series, place) => {
      const offset = (place - (drawn.length - 1) / 2) * 9;
      line.append(this.mark(series, own.get(series), middle + offset, scale));
    });
    const show = () => this.showTip(name, own, bottom);
    const hide = () => {
      this.tip.hidden = true;
    };
    for (const event of ["pointerenter", "focus"]) line.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) line.addEventListener(event, hide);
    return line;
  }

  mark(series, point, y, scale) {
    const place = this.series.indexOf(series);
    const group = makeSvg("g", { class: `series s${place}` });
    for (const value of point.values.length > 1 ? point.values : []) {
      group.append(makeSvg("circle", { class: "seed", cx: scale.at(value), cy: y, r: 1.8 }));
    }
    if (point.low.length) {
      const [x1, x2] = [scale.at(mean(point.low)), scale.at(mean(point.high))];
      group.append(makeSvg("line", { class: "interval", x1, x2, y1: y, y2: y }));
    }
    group.append(shape(SHAPES[place % SHAPES.length], scale.at(mean(point.values)), y, 4.5));
    return group;
  }

  sentence(series, point) {
    const interval = point.low.length
      ? `, interval ${mean(point.low).toFixed(3)} to ${mean(point.high).toFixed(3)}`
      : "";
    const seeds = point.values.length > 1 ? `, ${point.values.length} seeds` : "";
    const name = this.nameOf(this.about.series, series);
    return `${name} ${mean(point.values).toFixed(3)}${interval}${seeds}`;
  }

  showTip(name, own, top) {
    const lines = this.series
      .filter((s) => own.has(s))
      .map((series) => {
        const { values, low, high } = own.get(series);
        const interval = low.length ? `${mean(low).toFixed(3)} – ${mean(high).toFixed(3)}` : "";
        const seeds =
          values.length > 1 ? `${values.length} seeds, sd ${spread(values).toFixed(3)}` : "";
        const place = this.series.indexOf(series);
        const cells = [
          this.nameOf(this.about.series, series),
          mean(values).toFixed(3),
          interval,
          seeds,
        ];
        return make("tr", null, [
          make("td", null, this.swatch(place)),
          ...cells.map((cell) => make("td", null, visible(cell))),
        ]);
      });
    this.tip.replaceChildren(make("strong", null, visible(name)), make("table", null, lines));
    this.tip.hidden = false;
    this.tip.style.top = `${top + 4}px`;
    const room = this.plot.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, this.plot.clientWidth * 0.3))}px`;
  }

  swatch(place) {
    const picture = makeSvg("svg", { width: 14, height: 12, "aria-hidden": "true" });
    const group = makeSvg("g", { class: `series s${place}` });
    group.append(shape(SHAPES[place % SHAPES.length], 7, 6, 4.5));
    picture.append(group);
    return picture;
  }

  drawLegend(points) {
    const there = this.series.filter((s) => [...points.values()].some((own) => own.has(s)));
    const entries = there.map((series) => {
      const name = visible(this.nameOf(this.about.series, series));
      return make("span", null, this.swatch(this.series.indexOf(series)), name);
    });
    this.legend.replaceChildren(...(entries.length > 1 ? entries : []));
    const sign = SIGNS[this.chosen.get("orientation")];
    const notes = [
      "Large marks: mean over seeds; bars: mean interval over test questions; dots: seeds.",
      this.hasChance() ? "The dotted line is chance." : "",
      sign ? `The sign of CCS, PCA and others that find none was chosen ${sign}` : "",
    ];
    this.note.textContent = notes.join(" ");
  }
}

function facetName(facet) {
  const names = { orientation: "Sign chosen by", train: "Trained on", asked: "Asked for" };
  return names[facet] || columnName(facet);
}

/** What can be chosen of a facet among these rows, in reading order. */
function facetValues(column, rows, none) {
  const found = new Set();
  for (const row of rows) found.add(column.at(row));
  found.delete(null);
  if (found.size > 1) found.delete(none);
  const values = [...found];
  if (column.isNumber) values.sort((a, b) => a - b);
  if (column.name === "orientation") values.sort().reverse(); // the paper's oracle first
  return values;
}

function shape(kind, x, y, r) {
  if (kind === "circle") return makeSvg("circle", { class: "mean", cx: x, cy: y, r });
  const corners = {
    triangle: [
      [0, -1.25],
      [1.15, 0.85],
      [-1.15, 0.85],
    ],
    square: [
      [-0.9, -0.9],
      [0.9, -0.9],
      [0.9, 0.9],
      [-0.9, 0.9],
    ],
    diamond: [
      [0, -1.3],
      [1.1, 0],
      [0, 1.3],
      [-1.1, 0],
    ],
  }[kind];
  const points = corners.map(([dx, dy]) => `${x + dx * r},${y + dy * r}`).join(" ");
  return makeSvg("polygon", { class: "mean", points });
}

/** Round numbers from low to high. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, k) =>
    Number(((first + k) * step).toPrecision(6))
  );
}

/** One stop for Tab; arrow keys move among the lines. */
function walkable(lines) {
  lines.forEach((line, place) => {
    line.setAttribute("tabindex", place === 0 ? 0 : -1);
    line.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const next = lines[place + step];
      if (!next) return;
      event.preventDefault();
      line.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
  });
}

function mean(values) {
  return values.length ? values.reduce((sum, v) => sum + v, 0) / values.length : null;
}

/** The sample standard deviation. */
function spread(values) {
  const middle = mean(values);
  const squares = values.reduce((sum, v) => sum + (v - middle) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}
