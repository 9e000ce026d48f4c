// Numbers: how they are read from the data, counted exactly, and shown without ever being rounded up.

const NORM_NAMES = { l1: "ℓ₁", l2: "ℓ₂", linf: "ℓ∞" };

// The data writes a missing number as null and an infinite one as a string.
const numberOf = (value) => (value === null || value === undefined ? NaN : Number(value));

async function unzipped(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.values), (letter) => letter.charCodeAt(0));
  return { ...packed, values: new Float64Array(bytes.buffer) };
}

// How many of the packed numbers are >= radius: exact where block is 1, else never more.
function countAtLeast(packed, radius) {
  let low = 0;
  let high = packed.values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (packed.values[middle] >= radius) high = middle;
    else low = middle + 1;
  }
  return Math.min(packed.count, packed.block * (packed.values.length - low));
}

// Certified accuracy at a radius: all sensitive inputs of all seeds are in the denominator.
const certifiedAt = (line, radius) => countAtLeast(line.radii, radius) / line.rows;
const unbrokenAt = (line, radius) => countAtLeast(line.uppers, radius) / line.rows;

// The shortest decimal that means the number, cut after so many digits.
function cut(value, digits) {
  if (value === 0 || !Number.isFinite(value)) return value;
  const [mantissa, exponent] = value.toExponential().split("e");
  return Number(`${mantissa.slice(0, digits + 1)}e${exponent}`);
}

function radiusText(value) {
  if (Number.isNaN(value)) return "–";
  return value === Infinity ? "∞" : String(cut(value, 4));
}

// 1e-9 makes up for a share such as 0.29 that is stored a hair below itself.
function percentText(share) {
  return Number.isNaN(share) ? "–" : `${(Math.floor(share * 1000 + 1e-9) / 10).toFixed(1)} %`;
}

function secondsText(seconds) {
  if (Number.isNaN(seconds)) return "–";
  const short = (value) => String(Number(value.toPrecision(2)));
  if (seconds >= 1) return `${short(seconds)} s`;
  return seconds >= 1e-3 ? `${short(seconds * 1e3)} ms` : `${short(seconds * 1e6)} µs`;
}

// Radii as a person types them: numbers >= 0 with blanks, commas or semicolons between them.
function typedRadii(text) {
  const words = text.split(/[\s,;]+/).filter((word) => word !== "");
  const wrong = words.filter((word) => !(Number.isFinite(Number(word)) && Number(word) >= 0));
  if (wrong.length)
    return { radii: [], problem: `“${wrong[0]}” is not a radius: type numbers such as 0.5, 1.25` };
  if (words.length > 8) return { radii: [], problem: "type at most 8 radii" };
  return { radii: words.map(Number), problem: "" };
}
