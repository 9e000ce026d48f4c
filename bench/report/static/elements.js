// Building blocks of the page. Text from the data only ever becomes text, never markup.

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

// A name that may be broken after its underscores, so that a narrow column breaks no word.
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, place) => (place ? [el("wbr"), part] : [part]));
}

// A group of radio buttons in one frame; options: [[value, text], ...].
function choice(title, options, chosen, changed) {
  const name = `choice-${(choice.count = (choice.count || 0) + 1)}`;
  const buttons = options.map(([value, text]) => {
    const input = el("input", {
      type: "radio",
      name,
      value,
      checked: value === chosen,
      onchange: () => changed(value),
    });
    return el("label", {}, input, el("span", {}, text));
  });
  return el(
    "fieldset",
    { class: "choice" },
    el("legend", {}, title),
    el("div", { class: "options" }, buttons),
  );
}

function tick(title, checked, changed) {
  const input = el("input", { type: "checkbox", checked, onchange: () => changed(input.checked) });
  return el("label", { class: "tick" }, input, title);
}

function field(title, control) {
  return el("label", { class: "field" }, title, control);
}

function dropdown(title, options, changed) {
  const list = options.map(([value, text]) => el("option", { value }, text));
  const select = el("select", { onchange: () => changed(select.value) }, list);
  return field(title, select);
}

// A part that is folded away until it is asked for; its name stands in the address while it is open.
function folded(title, name, ...children) {
  const part = el("details", { "data-fold": name }, el("summary", {}, title), children);
  part.addEventListener("toggle", redraw);
  return part;
}

// A term and what it means, where it is used.
function explained(...pairs) {
  const parts = pairs.flatMap(([term, text]) => [el("b", {}, term), ` ${text} `]);
  return el("p", { class: "muted terms" }, parts);
}

function definitions(pairs) {
  return el(
    "dl",
    { class: "key" },
    pairs.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]),
  );
}

function scrollable(title, table) {
  return el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": title }, table);
}

// The charting library's markers, as paths around the origin.
const MARKERS = {
  circle: "M4,0A4,4 0 1 1 -4,0A4,4 0 1 1 4,0Z",
  square: "M-4,-4H4V4H-4Z",
  diamond: "M0,-5L5,0L0,5L-5,0Z",
  "triangle-up": "M0,-5L5,4H-5Z",
  "triangle-down": "M0,5L5,-4H-5Z",
  "triangle-left": "M-5,0L4,-5V5Z",
  "triangle-right": "M5,0L-4,-5V5Z",
  cross: "M-2,-5H2V-2H5V2H2V5H-2V2H-5V-2H-2Z",
  x: "M0,-2L3,-5L5,-3L2,0L5,3L3,5L0,2L-3,5L-5,3L-2,0L-5,-3L-3,-5Z",
  star: "M0,-6L1.5,-2L5.7,-1.8L2.4,0.8L3.5,4.9L0,2.5L-3.5,4.9L-2.4,0.8L-5.7,-1.8L-1.5,-2Z",
  pentagon: "M0,-5L4.8,-1.5L2.9,4H-2.9L-4.8,-1.5Z",
  hexagon: "M0,-5L4.3,-2.5V2.5L0,5L-4.3,2.5V-2.5Z",
};

function svg(tag, properties, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A short piece of a curve's line with its marker, as in the charts, in the colour of the text around it.
function swatch(dash, symbol) {
  const dashes = dash === "solid" ? "none" : dash.replaceAll("px", "");
  const line = { d: "M0,6H40", stroke: "currentColor", "stroke-width": 3, "stroke-dasharray": dashes };
  const marker = { d: MARKERS[symbol], fill: "currentColor", transform: "translate(20,6)" };
  const size = { width: 40, height: 12, "aria-hidden": "true" };
  return svg("svg", size, svg("path", line), svg("path", marker));
}

function save(name, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

// A number or text as one cell of a CSV file.
function csvCell(value) {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
