// --- what a filter's text means -----------------------------------------------------------------

const COMPARE = {
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  "=": (a, b) => Math.abs(a - b) < 5e-5,
  "!=": (a, b) => Math.abs(a - b) >= 5e-5,
};

/**
 * A test of numbers from text such as ">0.9", "0.4..0.6", ">0.5 <0.9", "none" (missing); null where
 * the text means nothing.
 */
function numberTest(text) {
  const spaced = text.replace(/([<>=!]+)\s+/g, "$1").replace(/\s*\.\.\s*/g, "..");
  const tests = spaced
    .trim()
    .split(/[\s,;]+/)
    .map(oneNumberTest);
  return tests.includes(null) ? null : (value) => tests.every((test) => test(value));
}

function oneNumberTest(text) {
  if (text === "none") return (value) => value === null;
  const range = /^(-?[\d.]+?)\.\.(-?[\d.]+)$/.exec(text);
  if (range) {
    const [low, high] = [Number(range[1]), Number(range[2])];
    if (Number.isNaN(low + high)) return null;
    return (value) => value !== null && value >= low && value <= high;
  }
  const found = /^(>=|<=|!=|>|<|={0,2})(-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)$/i.exec(text);
  if (!found) return null;
  const compare = COMPARE[found[1] === "==" || found[1] === "" ? "=" : found[1]];
  const bound = Number(found[2]);
  return (value) => value !== null && compare(value, bound);
}

/** A test of texts: "abc" is in it, "!abc" is not, "=abc" is all of it; case does not matter. */
function textTest(text) {
  const [, sign, rest] = /^([!=]?)([^]*)$/.exec(text.trim().toLowerCase());
  if (sign === "!") return (value) => !value.toLowerCase().includes(rest);
  if (sign === "=") return (value) => value.toLowerCase() === rest;
  return (value) => value.toLowerCase().includes(rest);
}
