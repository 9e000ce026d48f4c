// The page: what is on it, and what its controls change.

const data = JSON.parse(await unzipped(document.getElementById("data").textContent));
// Bands and upper ends of many curves hide each other: then they are shown on request.
const CROWDED = 8;
const crowded = data.datasets.some((dataset) => dataset.curves.length > CROWDED);
const state = {
  ...{ axis: START.axis, domain: START.domain, norm: "", method: "" },
  ...{ band: !crowded, bracket: !crowded, theme: "auto" },
};
const sections = [];
// What is coloured outside the sections, and what follows the state in the toolbar.
const paintings = [];
const controls = [];
// The section that is shown: one data set at one operating point.
let current = null;
let printing = false;

for (const dataset of data.datasets) {
  for (const curve of dataset.curves) {
    for (const line of Object.values(curve.norms)) {
      line.radii = unpack(line.radii);
      line.uppers = line.uppers && unpack(line.uppers);
    }
  }
}

const lines = data.datasets.flatMap((dataset) =>
  dataset.curves.flatMap((curve) => Object.values(curve.norms)),
);

function statusLine() {
  const rows = lines.reduce((sum, line) => sum + line.rows, 0);
  const broken = lines.filter((line) => line.attacked && line.attacked[1] > line.attacked[2]).length;
  const problems = ALARMS.filter((outcome) => data.outcomes[outcome] > 0).map(
    (outcome) => `${data.outcomes[outcome].toLocaleString("en")} ended in ${outcome}`,
  );
  if (broken) problems.push(`${broken} curve${broken > 1 ? "s" : ""} broken by an attack`);
  if (!rows)
    return el("p", { class: "status bad", role: "status" }, "This run has no rows: no cell left any result.");
  const all = `${rows.toLocaleString("en")} certificates asked for`;
  if (!problems.length)
    return el("p", { class: "status good", role: "status" }, `${all}: no timeouts, no errors.`);
  return el(
    "p",
    { class: "status bad", role: "status" },
    `${all}: ${problems.join(", ")}. The outcome tables say where.`,
  );
}

function buildHead() {
  const { times, hardware } = data.record;
  const facts = [times.started && times.started.slice(0, 10), hardware.processor, ...(hardware.gpus || [])];
  const links = [
    ["#main", "Curves"],
    ["#about", "Settings, versions, downloads"],
  ].map(([href, text]) => el("li", {}, el("a", { href }, text)));
  document
    .getElementById("head")
    .append(
      el("h1", {}, data.title),
      ...data.notes.map((note) => el("p", {}, note[0].toUpperCase() + note.slice(1))),
      el("p", { class: "muted" }, facts.filter(Boolean).join(" · ")),
      statusLine(),
      ...[buildVerdict()].filter(Boolean),
      el("nav", { "aria-label": "Contents" }, el("ul", {}, links)),
    );
}

// Which data set, and at which operating point where there are several.
function sectionControls() {
  const names = [...new Set(data.datasets.map((dataset) => dataset.dataset))];
  // At the same operating point where it has that one.
  const choose = (data, point) => {
    current = chosenSection({ data, point });
    redraw();
  };
  const found = [];
  if (names.length > 1) {
    const list = dropdown(
      "Data set",
      names.map((name) => [name, name]),
      (name) => choose(name, current.dataset.operating_point),
    );
    controls.push(() => (list.querySelector("select").value = current.dataset.dataset));
    found.push(list);
  }
  const points = [...new Map(data.datasets.map((d) => [d.operating_point, d.point]))];
  if (points.length > 1) {
    const list = dropdown("Operating point", points, (point) => choose(current.dataset.dataset, point));
    controls.push(() => (list.querySelector("select").value = current.dataset.operating_point));
    found.push(list);
  }
  return found;
}

function buildToolbar() {
  const set = (name) => (value) => {
    state[name] = value;
    redraw();
  };
  const pick = (title, options, name) => {
    const group = choice(title, options, state[name], set(name));
    controls.push(() => {
      for (const input of group.querySelectorAll("input")) input.checked = input.value === state[name];
    });
    return group;
  };
  const bar = document.getElementById("toolbar");
  bar.append(...sectionControls());
  const axes = [
    ["linear", "linear"],
    ["log", "logarithmic"],
  ];
  bar.append(pick("Radius axis", axes, "axis"));
  if (data.datasets.some((dataset) => dataset.curves.some((curve) => curve.domain === "box"))) {
    const options = [
      ["all", "all"],
      ["free", "anywhere"],
      ["box", "in the box"],
    ];
    bar.append(pick("Perturbed inputs", options, "domain"));
  }
  bar.append(tick("95 % band", state.band, set("band")));
  if (lines.some((line) => line.uppers))
    bar.append(tick("empirical upper end", state.bracket, set("bracket")));
  const themes = ["auto", "light", "dark"].map((theme) => [theme, theme]);
  bar.append(pick("Theme", themes, "theme"));
}

function redraw() {
  if (printing) return;
  document.documentElement.dataset.theme = state.theme;
  for (const section of sections) section.node.hidden = section !== current;
  [...controls, ...paintings].forEach((draw) => draw());
  current?.redraw();
  writeAddress();
}

// Paper is white, has one width, and folds nothing away.
function prepareToPrint() {
  printing = true;
  document.documentElement.dataset.theme = "light";
  for (const section of sections) section.node.hidden = false;
  for (const part of document.querySelectorAll("details")) part.open = true;
  const before = state.theme;
  state.theme = "light";
  [...sections.map((section) => section.redraw), ...paintings].forEach((draw) => draw());
  state.theme = before;
  for (const chart of document.querySelectorAll(".chart.js-plotly-plot"))
    Plotly.relayout(chart, { width: 330, height: 270 });
  for (const chart of document.querySelectorAll(".seconds.js-plotly-plot"))
    Plotly.relayout(chart, { width: 900 });
}

function backOnScreen() {
  printing = false;
  followAddress();
}

buildHead();
data.datasets.forEach(buildSection);
buildToolbar();
buildAbout();
current = sections[0] || null;
followAddress();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("hashchange", followAddress);
addEventListener("beforeprint", prepareToPrint);
addEventListener("afterprint", backOnScreen);
await loadPlotly();
redraw();
document.documentElement.dataset.ready = "true";
