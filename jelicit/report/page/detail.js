// --- one item, opened ---------------------------------------------------------------------------

/** All of an item of `browser`: texts, labels, and every method's score. */
function itemDetail(browser, row) {
  const part = (name, text) =>
    text === null || text === ""
      ? []
      : [make("dt", null, visible(name)), make("dd", { dir: "auto" }, visible(text))];
  const at = (name) => browser.items.column(name).at(row);
  const texts = { question: "Question", choice: "Claim", choice_2: "Second choice" };
  const others = browser.items.columns.filter(
    (column) => column.name.startsWith("other.") && column.at(row) !== null
  );
  const list = [
    ...Object.entries(texts).map(([key, name]) => part(name, at(key))),
    part("Label", labelText(at("label"))),
    ...others.map((column) => part(columnName(column.name.slice(6)), labelText(column.at(row)))),
    part("Set", at("dataset")),
    part("Id", at("id")),
    part("Group", at("group")),
  ];
  return make("div", { class: "detail" }, make("dl", null, list.flat()), itemStrips(browser, row));
}

/** Every method: where its score stands among those of all items, and where its verdicts turn. */
function itemStrips(browser, row) {
  const heads = ["Method", "among all items", "percentile", "score", "verdict"];
  const head = heads.map((name) => make("th", { scope: "col" }, name));
  const lines = browser.methods.map((method) => {
    const [place, score] = [browser.percentile(method, row), browser.score(method, row)];
    const right = browser.isRight(method, row);
    const cells = [
      place === null ? "not scored" : (place * 100).toFixed(1),
      score === null ? "" : score.toFixed(2),
      { true: "✓ right", false: "✕ wrong", null: "" }[right],
    ];
    return make("tr", null, [
      make("th", { scope: "row" }, visible(method.name)),
      make("td", null, strip(method.scores, place, right)),
      ...cells.map((cell) => make("td", { class: "number" }, cell)),
    ]);
  });
  const body = make("tbody", null, lines);
  return make("table", { class: "strips" }, make("thead", null, make("tr", null, head)), body);
}

/** A line from the lowest score to the highest, with a mark at a percentile. */
function strip(scores, place, right) {
  const picture = makeSvg("svg", { class: "strip", viewBox: "0 0 200 16", "aria-hidden": "true" });
  const at = (share) => 6 + 188 * share;
  const turn = at(turningPoint(scores));
  picture.append(makeSvg("line", { class: "track", x1: at(0), x2: at(1), y1: 8, y2: 8 }));
  picture.append(makeSvg("line", { class: "turn", x1: turn, x2: turn, y1: 2, y2: 14 }));
  if (place !== null) {
    const mark = makeSvg("g", { class: right === false ? "bad" : "good" });
    mark.append(shape(right === false ? "diamond" : "circle", at(place), 8, 4.5));
    picture.append(mark);
  }
  return picture;
}

function labelText(value) {
  if (value === null) return "none";
  return value === true || value === 1 ? "True" : "False";
}

/** The share of scores below each one, ties counted half: 0 to 1; null where there is no score. */
function percentiles(scores) {
  const sorted = Float64Array.from(scores.filter((score) => score !== null)).sort();
  const below = (score, isBelow) => {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBelow(sorted[middle], score)) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return scores.map((score) => {
    if (score === null) return null;
    const [less, upTo] = [below(score, (a, b) => a < b), below(score, (a, b) => a <= b)];
    return (less + upTo) / 2 / sorted.length;
  });
}

/** The share of scores that read as False: where the verdict turns. */
function turningPoint(scores) {
  const known = scores.filter((score) => score !== null);
  return known.filter((score) => score <= 0).length / Math.max(1, known.length);
}
