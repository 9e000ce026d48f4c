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

// A short piece of a curve's line, as in the charts.
function swatch(color, dash) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const settings = { x1: 0, y1: 5, x2: 34, y2: 5, stroke: color, "stroke-width": 3 };
  if (dash !== "solid") settings["stroke-dasharray"] = dash.replaceAll("px", "");
  for (const [name, value] of Object.entries(settings)) line.setAttribute(name, value);
  for (const [name, value] of Object.entries({ width: 34, height: 10, "aria-hidden": "true" })) {
    picture.setAttribute(name, value);
  }
  picture.append(line);
  return picture;
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
