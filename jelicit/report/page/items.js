// --- items: what each method says of each text --------------------------------------------------

const PAGE = 25;
const MANY = 8; // score columns shown at first

/** The items of one panel with each method's verdict, and the ways to find the telling ones. */
class ItemBrowser {
  constructor(place, tables, about) {
    Object.assign(this, { place, panels: about.panels, sets: about.sets });
    this.items = tables.items;
    this.tables = tables;
    this.texts = ["question", "choice", "choice_2"].map((name) => this.items.column(name));
    this.wanted = { text: "", label: "", dataset: "", outcome: "", sort: "error" };
    this.others = new Map();
    this.list = make("div", { class: "items" });
    this.pager = make("div", { class: "tools pager" });
    this.count = make("span", { class: "count", role: "status" });
    this.controls = make("div");
    this.place.append(this.controls, this.list, this.pager);
    this.open(0);
  }

  /** Shows a panel. */
  open(number) {
    const panel = this.panels[number];
    this.number = number;
    const table = this.tables[panel.table];
    const first = this.firstRow(number);
    this.rows = Array.from({ length: table.length }, (_, k) => first + k);
    this.first = first;
    this.methods = panel.methods.map((method) => {
      const scores = table.column(String(method.place)).first(table.length);
      return { ...method, scores, places: percentiles(scores) };
    });
    this.shown = new Set(this.firstMethods());
    const ccs = this.methods.find((method) => method.key === "ccs");
    this.focus = ccs || this.methods[0];
    this.shown.add(this.focus);
    this.buildControls();
    this.refresh();
  }

  firstRow(number) {
    const column = this.items.column("panel");
    for (let row = 0; row < column.length; row++) if (column.at(row) === number) return row;
    return 0;
  }

  /** One column per method, and no more than fit. */
  firstMethods() {
    const keys = new Set();
    const single = this.methods.filter((method) => !keys.has(method.key) && keys.add(method.key));
    return single.slice(0, MANY);
  }

  buildControls() {
    const want = (name) => (value) => {
      this.wanted[name] = value;
      this.refresh();
    };
    const panels = this.panels.map((panel, place) => [String(place), panel.name]);
    const open = (value) => this.open(Number(value));
    const fields = [];
    if (panels.length > 1)
      fields.push(makeSelect("Panel", panels, String(this.number), open).field);
    const sorts = [
      ["error", "error of the method"],
      ["spread", "disagreement between methods"],
      ["high", "score of the method, highest first"],
      ["low", "score of the method, lowest first"],
      ["none", "order of the set"],
    ];
    const outcomes = [
      ["", "right or wrong"],
      ["wrong", "wrong"],
      ["right", "right"],
    ];
    const methods = this.methods.map((method, place) => [String(place), method.name]);
    const focused = String(this.methods.indexOf(this.focus));
    fields.push(makeSelect("Method", methods, focused, (v) => this.setFocus(Number(v))).field);
    fields.push(makeSelect("Its verdict is", outcomes, this.wanted.outcome, want("outcome")).field);
    fields.push(makeSelect("Sort by", sorts, this.wanted.sort, want("sort")).field);
    fields.push(...this.labelFields(want), this.search(want("text")));
    this.controls.replaceChildren(
      make("div", { class: "fields" }, fields),
      make("div", { class: "tools" }, this.count, this.chooser())
    );
  }

  /** Filters by label, by other labels, and by set. */
  labelFields(want) {
    const truths = [
      ["", "all"],
      ["1", "True"],
      ["0", "False"],
      ["null", "none"],
    ];
    const fields = [makeSelect("Label", truths, this.wanted.label, want("label")).field];
    this.others.clear();
    for (const column of this.items.columns) {
      if (!column.name.startsWith("other.")) continue;
      if (!this.rows.some((row) => column.at(row) !== null)) continue;
      const entries = [
        ["", "all"],
        ["true", "True"],
        ["false", "False"],
      ];
      const choose = (value) => {
        this.others.set(column, value);
        this.refresh();
      };
      fields.push(makeSelect(columnName(column.name.slice(6)), entries, "", choose).field);
    }
    const dataset = this.items.column("dataset");
    const sets = [...new Set(this.rows.map((row) => dataset.at(row)))];
    this.wanted.dataset = "";
    if (sets.length > 1) {
      const entries = [["", "all"], ...sets.map((name) => [name, this.sets[name]])];
      fields.push(makeSelect("Set", entries, "", want("dataset")).field);
    }
    return fields;
  }

  search(onchange) {
    const field = make("input", { type: "search", placeholder: "words in the text" });
    field.value = this.wanted.text;
    field.addEventListener(
      "input",
      debounce(() => onchange(field.value), 150)
    );
    return makeField("Text", field);
  }

  /** Which methods have a column. */
  chooser() {
    const boxes = this.methods.map((method) => {
      const box = make("input", { type: "checkbox", checked: this.shown.has(method) });
      box.addEventListener("change", () => {
        if (box.checked) this.shown.add(method);
        else this.shown.delete(method);
        this.refresh();
      });
      return make("label", null, box, visible(method.name));
    });
    const setAll = (checked) => () => {
      this.shown = new Set(checked ? this.methods : [this.focus]);
      this.buildControls();
      this.refresh();
      this.controls.querySelector("details.menu").open = true;
    };
    const all = make("button", { type: "button", onclick: setAll(true) }, "All");
    const one = make("button", { type: "button", onclick: setAll(false) }, "One");
    const menu = make("details", { class: "menu" }, make("summary", null, "Methods"));
    menu.append(make("div", { class: "choices" }, make("div", null, all, one), boxes));
    return menu;
  }

  setFocus(place) {
    this.focus = this.methods[place];
    if (!this.shown.has(this.focus)) {
      this.shown.add(this.focus);
      this.buildControls();
    }
    this.refresh();
  }

  label(row) {
    return this.items.column("label").at(row);
  }

  /** true, false, or null where label or score is missing. */
  isRight(method, row) {
    const [label, score] = [this.label(row), this.score(method, row)];
    return label === null || score === null ? null : score > 0 === (label === 1);
  }

  /** The share of items that score lower, 0 to 1; null where the method left the item out. */
  percentile(method, row) {
    return method.places[row - this.first];
  }

  score(method, row) {
    return method.scores[row - this.first];
  }

  /** |label - percentile|, 0 to 1; null where there is no label. */
  error(method, row) {
    const [label, place] = [this.label(row), this.percentile(method, row)];
    return label === null || place === null ? null : Math.abs(label - place);
  }

  /** Standard deviation of the shown methods' percentiles. */
  disagreement(row) {
    const places = [...this.shown].map((m) => this.percentile(m, row)).filter((p) => p !== null);
    return places.length > 1 ? spread(places) : null;
  }

  /** What items are sorted by, as [name, value of a row, sign]. */
  sortedBy() {
    const score = (row) => this.score(this.focus, row);
    return {
      error: ["Error", (row) => this.error(this.focus, row), -1],
      spread: ["Spread", (row) => this.disagreement(row), -1],
      high: ["Score", score, -1],
      low: ["Score", score, 1],
      none: ["Score", score, 0],
    }[this.wanted.sort];
  }

  passes(row) {
    const { text, label, dataset, outcome } = this.wanted;
    if (label && String(this.label(row)) !== label) return false;
    if (dataset && this.items.column("dataset").at(row) !== dataset) return false;
    for (const [column, value] of this.others) {
      if (value && String(column.at(row)) !== value) return false;
    }
    if (outcome && this.isRight(this.focus, row) !== (outcome === "right")) return false;
    const words = text.toLowerCase();
    return !words || this.texts.some((t) => (t.at(row) || "").toLowerCase().includes(words));
  }

  refresh() {
    const [, value, sign] = this.sortedBy();
    const found = this.rows.filter((row) => this.passes(row)).map((row) => [row, value(row)]);
    if (sign) found.sort(([a, x], [b, y]) => (x === y ? a - b : compareNumbers(x, y, sign)));
    this.found = found;
    const wrong = found.filter(([row]) => this.isRight(this.focus, row) === false).length;
    const judged = found.filter(([row]) => this.isRight(this.focus, row) !== null).length;
    const items = `${counted(found.length)} of ${counted(this.rows.length)} items`;
    const said = `is wrong on ${counted(wrong)} of ${counted(judged)} with a label`;
    this.count.textContent = `${items}; ${visible(this.focus.name)} ${said}`;
    this.turn(0);
  }

  /** Shows a page of the items. */
  turn(page) {
    const pages = Math.max(1, Math.ceil(this.found.length / PAGE));
    const found = this.found.slice(page * PAGE, (page + 1) * PAGE);
    const methods = this.methods.filter((method) => this.shown.has(method));
    const lines = found.map(([row, value]) => this.line(row, value, methods));
    const table = make(
      "table",
      null,
      make("thead", null, this.head(methods)),
      make("tbody", null, lines)
    );
    this.list.replaceChildren(found.length ? table : make("p", null, "No item fits."));
    const go = (text, to) => {
      const isOff = to < 0 || to >= pages;
      const turn = () => {
        this.turn(to);
        this.place.scrollIntoView();
      };
      return make("button", { type: "button", disabled: isOff, onclick: turn }, text);
    };
    const where = make("span", null, `page ${page + 1} of ${counted(pages)}`);
    this.pager.replaceChildren(go("Previous", page - 1), where, go("Next", page + 1));
  }

  head(methods) {
    const [name] = this.sortedBy();
    const column = (text, kind) => make("th", { scope: "col", class: kind }, text);
    const slanted = methods.map((method) => {
      const kind = method === this.focus ? "method focus" : "method";
      return make("th", { scope: "col", class: kind }, make("span", null, visible(method.name)));
    });
    return make("tr", null, column("Label"), column("Item"), column(name, "number"), slanted);
  }

  line(row, value, methods) {
    const cells = methods.map((method) => this.verdict(method, row));
    const opener = make(
      "button",
      { type: "button", class: "opener", "aria-expanded": "false" },
      "Open"
    );
    const line = make("tr", { class: "item" }, [
      make("td", { class: "label" }, labelText(this.label(row))),
      make("td", { class: "text" }, this.short(row), opener),
      make("td", { class: "number sorted" }, value === null ? "" : value.toFixed(2)),
      ...cells,
    ]);
    opener.addEventListener("click", () => this.toggle(line, opener, row, methods.length + 3));
    return line;
  }

  short(row) {
    const parts = this.texts.map((column) => column.at(row)).filter((text) => text);
    const lines = parts.map((text) => make("div", { dir: "auto" }, visible(text.slice(0, 600))));
    return make("div", { class: "short" }, lines);
  }

  /** A mark and the percentile; a wrong one is tinted. */
  verdict(method, row) {
    const place = this.percentile(method, row);
    const right = this.isRight(method, row);
    const kind = right === null ? "" : right ? "right" : "wrong";
    const sign = right === null ? "" : right ? "✓" : "✕";
    const words = right === null ? "no label" : right ? "right" : "wrong";
    const shown = place === null ? "–" : String(Math.round(place * 100));
    const title = `${visible(method.name)}: ${words}, percentile ${shown}`;
    return make("td", { class: `verdict ${kind}`, title, "data-name": visible(method.name) }, [
      make("span", { class: "sign" }, sign),
      shown,
    ]);
  }

  toggle(line, opener, row, columns) {
    const isOpen = opener.getAttribute("aria-expanded") === "true";
    opener.setAttribute("aria-expanded", String(!isOpen));
    opener.textContent = isOpen ? "Open" : "Close";
    if (isOpen) return line.nextSibling.remove();
    const cell = make("td", { colspan: columns }, itemDetail(this, row));
    return line.after(make("tr", { class: "opened" }, cell));
  }
}

/** By numbers, missing ones last. */
function compareNumbers(x, y, sign) {
  if (x === null || y === null) return x === null ? 1 : -1;
  return sign * (x - y);
}
