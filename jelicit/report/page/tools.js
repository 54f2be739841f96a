// --- elements, texts and numbers ---------------------------------------------------------------

/** An element. Children that are no nodes become text, so data never becomes markup. */
function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function makeSvg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

let labelled = 0;

/** A control under its label. */
function makeField(label, control) {
  control.id = `control-${labelled++}`;
  return make(
    "div",
    { class: "field" },
    make("label", { for: control.id }, visible(label)),
    control
  );
}

/** A labelled <select>; entries are [value, text]. */
function makeSelect(label, entries, chosen, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  setOptions(select, entries, chosen);
  return { field: makeField(label, select), select };
}

function setOptions(select, entries, chosen) {
  const options = entries.map(([value, text]) => make("option", { value }, visible(text)));
  select.replaceChildren(...options);
  select.value = chosen;
}

const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u061c\\u200b\\u200e\\u200f" +
    "\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\ufffe\\uffff]",
  "g"
);

/** Text with the characters that hide, reorder or cut text shown by their numbers. */
function visible(text) {
  const number = (c) => c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
  return String(text).replace(HIDDEN, (c) => `⟨U+${number(c)}⟩`);
}

/** A measured number: four digits after the point, or three that count where it is tiny. */
function measured(value) {
  if (value === null || Number.isNaN(value)) return "";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toPrecision(3);
  return value.toFixed(4);
}

/** A number with commas. */
function counted(value) {
  return value.toLocaleString("en");
}

/** "class_share" -> "class share", "settings.sweep.ccs_steps" -> "sweep.ccs steps". */
function columnName(name) {
  const names = { auroc: "AUROC", auroc_low: "AUROC low", auroc_high: "AUROC high" };
  const short = name.replace(/^settings\./, "").replace(/_/g, " ");
  return names[name] || short.charAt(0).toUpperCase() + short.slice(1);
}

const pen = make("canvas").getContext("2d");

/** Pixels that a text takes. */
function textWidth(text, font) {
  pen.font = font;
  return pen.measureText(text).width;
}

function debounce(action, milliseconds) {
  let waiting = 0;
  return (...values) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => action(...values), milliseconds);
  };
}

/** Offers text as a file. */
function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
