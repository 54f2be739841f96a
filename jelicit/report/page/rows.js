// --- the table of rows --------------------------------------------------------------------------

const ROW_HEIGHT = 30; // pixels; report.css has it too
const SPARE_ROWS = 10; // drawn above and below what is seen
const MEASURED_TEXTS = 500; // of a column, to know its width
const FEW = 30; // a column of so many different values is filtered by choosing one

/** A table that is sorted, filtered and drawn where it is seen. */
class RowsTable {
  constructor(place, table, about) {
    Object.assign(this, { place, table, about });
    this.measures = new Set(about.measured);
    this.signed = new Set(about.signed);
    this.varying = table.columns.filter((column) => column.kind !== "same");
    if (this.varying.length === 0) this.varying = table.columns.slice(0, 1);
    const quiet = new Set(about.quiet);
    this.shown = new Set(this.varying.filter((c) => !quiet.has(c.name)));
    if (this.shown.size === 0) this.shown = new Set(this.varying);
    this.filters = new Map(); // column -> test of a row
    this.sorting = []; // [column, +1 or -1], the most important first
    this.build();
    this.refresh();
  }

  build() {
    this.count = make("span", { class: "count", role: "status" });
    this.head = make("thead");
    this.body = make("tbody");
    this.widths = make("colgroup");
    this.grid = make("table", { class: "rows" }, this.widths, this.head, this.body);
    this.view = make("div", { class: "view", tabindex: 0, role: "region" }, this.grid);
    this.view.setAttribute("aria-label", "Rows; arrow keys scroll");
    let waiting = false;
    const draw = () => {
      waiting = false;
      this.draw();
    };
    this.view.addEventListener("scroll", () => {
      if (!waiting) requestAnimationFrame(draw);
      waiting = true;
    });
    new ResizeObserver(() => this.draw()).observe(this.view);
    this.place.append(this.tools(), this.view, this.constants());
    this.buildHead();
  }

  tools() {
    const clear = make("button", { type: "button", onclick: () => this.clear() }, "Clear filters");
    const save = make("button", { type: "button", onclick: () => this.save() }, "Download CSV");
    const boxes = this.varying.map((column) => {
      const box = make("input", { type: "checkbox", checked: this.shown.has(column) });
      box.addEventListener("change", () => this.toggle(column, box.checked));
      return make("label", null, box, visible(this.about.titles[column.name]));
    });
    const columns = make("details", { class: "menu" }, make("summary", null, "Columns"));
    columns.append(make("div", { class: "choices" }, boxes));
    return make("div", { class: "tools" }, this.count, clear, save, columns);
  }

  /** Columns that say the same in every row, folded away. */
  constants() {
    const same = this.table.columns.filter((c) => c.kind === "same" && c.values[0] !== null);
    if (same.length === 0) return "";
    const lines = same.map((column) =>
      make("tr", null, [
        make("th", { scope: "row" }, visible(column.name)),
        make("td", null, visible(this.text(column, 0))),
      ])
    );
    const body = make("table", { class: "pairs" }, make("tbody", null, lines));
    const title = `The same in every row (${same.length} columns)`;
    return make("details", null, make("summary", null, title), body);
  }

  toggle(column, isShown) {
    if (isShown) this.shown.add(column);
    else this.shown.delete(column);
    this.buildHead();
    this.draw();
  }

  columns() {
    return this.varying.filter((column) => this.shown.has(column));
  }

  buildHead() {
    const columns = this.columns();
    const widths = columns.map((column) => this.widthOf(column));
    const cols = widths.map(() => make("col"));
    cols.forEach((col, place) => {
      col.style.width = `${widths[place]}px`;
    });
    this.widths.replaceChildren(...cols);
    // With a width of its own the table keeps its columns while other rows scroll in.
    this.grid.style.width = `${widths.reduce((sum, width) => sum + width, 0)}px`;
    const titles = columns.map((column) => this.title(column));
    const filters = columns.map((column) => make("td", null, this.filterField(column)));
    const lines = [titles, filters].map((cells) => make("tr", null, cells));
    lines[1].className = "filters";
    this.head.replaceChildren(...lines);
  }

  /** Pixels that a column needs: for its values, the words of its title, and its filter. */
  widthOf(column) {
    const style = getComputedStyle(this.grid);
    const font = `${style.fontSize} ${style.fontFamily}`;
    const words = this.about.titles[column.name].split(" ");
    const title = Math.max(...words.map((word) => textWidth(word, `600 ${font}`)));
    const values = column.values || column.first(MEASURED_TEXTS);
    const texts = values.slice(0, MEASURED_TEXTS).map((value) => this.shownValue(column, value));
    const widest = Math.max(...texts.map((text) => textWidth(visible(text), font)));
    return Math.ceil(Math.min(300, Math.max(64, title + 34, widest + 22)));
  }

  title(column) {
    const found = this.sorting.find(([sorted]) => sorted === column);
    const direction = found ? { 1: "ascending", "-1": "descending" }[found[1]] : "none";
    const arrow = { ascending: " ↑", descending: " ↓", none: "" }[direction];
    const button = make("button", { type: "button", onclick: () => this.sortBy(column) });
    button.append(visible(this.about.titles[column.name]), make("span", { class: "arrow" }, arrow));
    const kind = column.isNumber ? "number" : "";
    return make("th", { scope: "col", class: kind, "aria-sort": direction }, button);
  }

  /** Numbers: largest first, then smallest first, then as they were; texts: the other way. */
  sortBy(column) {
    const first = column.isNumber ? -1 : 1;
    const found = this.sorting.find(([sorted]) => sorted === column);
    const next = found === undefined ? first : found[1] === first ? -first : 0;
    this.sorting = this.sorting.filter(([sorted]) => sorted !== column);
    if (next) this.sorting.unshift([column, next]);
    this.redrawTitles();
    this.refresh();
  }

  redrawTitles() {
    const line = this.head.rows[0];
    const focused = [...line.cells].findIndex((cell) => cell.contains(document.activeElement));
    line.replaceChildren(...this.columns().map((column) => this.title(column)));
    if (focused >= 0) line.cells[focused].firstChild.focus();
  }

  filterField(column) {
    const label = `Filter ${this.about.titles[column.name]}`;
    const kept = this.filters.get(column);
    const isSet = !this.measures.has(column.name);
    if (isSet && column.values && column.values.length <= FEW) {
      const sorted = [...ranksOf(column.values, this.order(column)).keys()];
      if (column.isNumber) sorted.sort((a, b) => a - b);
      if (column.values.includes(null)) sorted.push(null);
      const entries = sorted.map((v) => [JSON.stringify(v), this.shownValue(column, v) || "none"]);
      const select = make("select", { "aria-label": label });
      setOptions(select, [["", "all"], ...entries], kept ? kept.text : "");
      select.addEventListener("change", () => {
        const text = select.value;
        this.setFilter(column, text, text && equals(JSON.parse(text)));
      });
      return select;
    }
    const hint = column.isNumber ? "> 0.9" : "text";
    const field = make("input", { type: "search", placeholder: hint, "aria-label": label });
    field.value = kept ? kept.text : "";
    field.addEventListener(
      "input",
      debounce(() => this.typed(column, field), 120)
    );
    return field;
  }

  typed(column, field) {
    const text = field.value;
    let test = "";
    if (text.trim()) {
      test = column.isNumber ? numberTest(text) : this.textTestOf(column, text);
    }
    field.setAttribute("aria-invalid", String(test === null));
    field.title = test === null ? "Write > 0.9, 0.4..0.6, = 1 or none" : "";
    if (test !== null) this.setFilter(column, text, test);
  }

  textTestOf(column, text) {
    const test = textTest(text);
    return (value) => test(String(value ?? "none")) || test(this.shownValue(column, value));
  }

  setFilter(column, text, test) {
    if (test) this.filters.set(column, { text, test });
    else this.filters.delete(column);
    this.refresh();
  }

  clear() {
    this.filters.clear();
    this.buildHead();
    this.refresh();
  }

  /** Reading order of a column's values, where it has one. */
  order(column) {
    const names = this.about.names[column.name];
    return names && Object.keys(names);
  }

  /** Chooses and orders the rows anew, and draws them from the top. */
  refresh() {
    const kept = new Uint32Array(this.table.length);
    const tests = [...this.filters].map(([column, { test }]) => rowTest(column, test));
    let length = 0;
    for (let row = 0; row < this.table.length; row++) {
      if (tests.every((test) => test(row))) kept[length++] = row;
    }
    this.rows = kept.subarray(0, length);
    if (this.sorting.length) this.rows.sort(this.comparison());
    const total = counted(this.table.length);
    const all = `${total} ${this.table.length === 1 ? "row" : "rows"}`;
    this.count.textContent = this.filters.size ? `${counted(length)} of ${total} rows` : all;
    this.grid.setAttribute("aria-rowcount", length + 2);
    this.view.scrollTop = 0;
    this.draw();
  }

  /** Rows by the sorted columns; missing values last either way; ties stay in their order. */
  comparison() {
    const keys = this.sorting.map(([column, sign]) => [column.sortKeys(this.order(column)), sign]);
    return (a, b) => {
      for (const [key, sign] of keys) {
        const [x, y] = [key[a], key[b]];
        if (x === y) continue;
        if (Number.isNaN(x) || Number.isNaN(y)) {
          if (Number.isNaN(x) && Number.isNaN(y)) continue;
          return Number.isNaN(x) ? 1 : -1;
        }
        return sign * (x - y);
      }
      return 0;
    };
  }

  draw() {
    const seen = Math.ceil(this.view.clientHeight / ROW_HEIGHT);
    const above = Math.floor(this.view.scrollTop / ROW_HEIGHT);
    const first = Math.max(0, Math.min(above - SPARE_ROWS, this.rows.length - seen));
    const last = Math.min(this.rows.length, above + seen + SPARE_ROWS);
    const columns = this.columns();
    const lines = [this.gap(first, columns.length)];
    for (let place = first; place < last; place++) lines.push(this.line(place, columns));
    lines.push(this.gap(this.rows.length - last, columns.length));
    this.body.replaceChildren(...lines);
  }

  /** Room for rows that are not drawn. */
  gap(rows, columns) {
    const cell = make("td", { colspan: Math.max(1, columns) });
    cell.style.height = `${rows * ROW_HEIGHT}px`;
    return make("tr", { class: "gap", "aria-hidden": "true" }, cell);
  }

  line(place, columns) {
    const row = this.rows[place];
    const cells = columns.map((column) => {
      const text = visible(this.text(column, row));
      const title = text.length > 30 ? text : null;
      return make("td", { class: column.isNumber ? "number" : null, title }, text);
    });
    return make("tr", { "aria-rowindex": place + 3, class: place % 2 ? "odd" : null }, cells);
  }

  text(column, row) {
    return this.shownValue(column, column.at(row));
  }

  /** A value for readers. */
  shownValue(column, value) {
    if (value === null) return "";
    const names = this.about.names[column.name];
    if (names && Object.hasOwn(names, value)) return names[value];
    const sign = this.signed.has(column.name) && value > 0 ? "+" : "";
    return this.measures.has(column.name) ? sign + measured(value) : String(value);
  }

  /** The rows and columns that are shown, in their order; texts as they stand in the data. */
  save() {
    const columns = this.columns();
    const lines = [columns.map((column) => csvCell(column.name)).join(",")];
    for (const row of this.rows) {
      lines.push(columns.map((column) => csvCell(this.csvText(column, row))).join(","));
    }
    download("rows.csv", lines.join("\r\n") + "\r\n");
  }

  csvText(column, row) {
    const value = column.at(row);
    if (value === null) return "";
    return this.measures.has(column.name) ? measured(value) : String(value);
  }
}

function equals(wanted) {
  return (value) => value === wanted;
}

/** A test of rows from a test of values; where values are few, each is tested once. */
function rowTest(column, test) {
  if (column.kind !== "codes") return (row) => test(column.at(row));
  const passes = column.values.map((value) => test(value));
  return (row) => passes[column.array[row]];
}

/** A CSV cell; a text that a spreadsheet would take for a formula gets an apostrophe. */
function csvCell(text) {
  const isFormula = /^[=+\-@\t\r]/.test(text) && !/^-?[\d.]+(e[+-]?\d+)?$/i.test(text);
  const plain = isFormula ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replace(/"/g, '""')}"` : plain;
}
