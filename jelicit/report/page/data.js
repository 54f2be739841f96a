// --- the packed tables (see packing.py) ---------------------------------------------------------

const MISSING = -32768;
const ARRAYS = {
  u1: Uint8Array,
  u2: Uint16Array,
  u4: Uint32Array,
  i2: Int16Array,
  f4: Float32Array,
  f8: Float64Array,
};

/** One column of a table. */
class Column {
  constructor(about, length, buffer, start) {
    this.name = about.name;
    this.kind = about.kind;
    this.length = length;
    this.perUnit = about.per_unit;
    this.array = about.type ? new ARRAYS[about.type](buffer, start + about.start, length) : null;
    /** Different values where they are few, else null. */
    this.values = { same: [about.value], codes: about.values }[about.kind] || null;
    this.isNumber = !this.values || this.values.every((v) => v === null || typeof v === "number");
  }

  /** The value in a row; null where it is missing. */
  at(row) {
    if (this.kind === "same") return this.values[0];
    const found = this.array[row];
    if (this.kind === "codes") return this.values[found];
    if (this.kind === "fixed") return found === MISSING ? null : found / this.perUnit;
    return Number.isNaN(found) ? null : found;
  }

  /** The values of the first rows. */
  first(rows) {
    return Array.from({ length: Math.min(rows, this.length) }, (_, row) => this.at(row));
  }

  /** A number per row to sort by: ranks of texts, numbers themselves; NaN where missing. */
  sortKeys(order) {
    if (this.keys) return this.keys;
    this.keys = new Float64Array(this.length);
    const ranks = this.values && !this.isNumber ? ranksOf(this.values, order) : null;
    for (let row = 0; row < this.length; row++) {
      const value = ranks ? ranks.get(this.at(row)) : this.at(row);
      this.keys[row] = value === null || value === undefined ? NaN : value;
    }
    return this.keys;
  }
}

/** Value -> place: as in `order` (known values first), then by the alphabet. */
function ranksOf(values, order) {
  const place = new Map((order || []).map((value, index) => [value, index]));
  const known = (value) => (place.has(value) ? place.get(value) : Infinity);
  const sorted = values.filter((value) => value !== null);
  const language = new Intl.Collator("en", { numeric: true });
  sorted.sort((a, b) => {
    const [first, second] = [known(a), known(b)];
    return first === second ? language.compare(String(a), String(b)) : first - second;
  });
  return new Map(sorted.map((value, index) => [value, index]));
}

/** Table name -> {length, columns, column(name)}, and what Python says about them. */
async function readData() {
  const text = document.getElementById("data").textContent;
  const buffer = await gunzip(bytesOf(text.trim()));
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const tables = {};
  for (const [name, table] of Object.entries(header.tables)) {
    const columns = table.columns.map((c) => new Column(c, table.length, buffer, 4 + size));
    const byName = new Map(columns.map((column) => [column.name, column]));
    tables[name] = { length: table.length, columns, column: (key) => byName.get(key) };
  }
  return { about: header.about, tables };
}

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
