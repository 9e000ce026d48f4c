// The page: what is on it, and what its controls change.

const data = JSON.parse(document.getElementById("data").textContent);
// Bands and upper ends of many curves hide each other: then they are shown on request.
const CROWDED = 8;
const crowded = data.datasets.some((dataset) => dataset.curves.length > CROWDED);
const state = { axis: "linear", domain: "all", band: !crowded, bracket: !crowded, theme: "auto" };
const sections = [];

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
  const links = data.datasets.map((dataset, place) =>
    el("li", {}, el("a", { href: `#data-${place}` }, dataset.name)),
  );
  links.push(el("li", {}, el("a", { href: "#about" }, "Settings, versions, downloads")));
  document
    .getElementById("head")
    .append(
      el("h1", {}, data.title),
      ...data.notes.map((note) => el("p", {}, note[0].toUpperCase() + note.slice(1))),
      el("p", { class: "muted" }, facts.filter(Boolean).join(" · ")),
      statusLine(),
      el("nav", { "aria-label": "Contents" }, el("ul", {}, links)),
    );
}

function buildToolbar() {
  const set = (name) => (value) => {
    state[name] = value;
    redraw();
  };
  const bar = document.getElementById("toolbar");
  const boxed = data.datasets.some((dataset) => dataset.curves.some((curve) => curve.domain === "box"));
  bar.append(
    choice(
      "Radius axis",
      [
        ["linear", "linear"],
        ["log", "logarithmic"],
      ],
      state.axis,
      set("axis"),
    ),
  );
  if (boxed) {
    const options = [
      ["all", "all"],
      ["free", "anywhere"],
      ["box", "in the box"],
    ];
    bar.append(choice("Perturbed inputs", options, state.domain, set("domain")));
  }
  bar.append(tick("95 % band", state.band, set("band")));
  if (lines.some((line) => line.uppers))
    bar.append(tick("empirical upper end", state.bracket, set("bracket")));
  bar.append(
    choice(
      "Theme",
      [
        ["auto", "auto"],
        ["light", "light"],
        ["dark", "dark"],
      ],
      state.theme,
      set("theme"),
    ),
  );
}

function redraw() {
  document.documentElement.dataset.theme = state.theme;
  sections.forEach((section) => section.redraw());
}

// Paper is white, has one width, and folds nothing away.
function prepareToPrint() {
  document.documentElement.dataset.theme = "light";
  for (const part of document.querySelectorAll("details")) part.open = true;
  const before = state.theme;
  state.theme = "light";
  sections.forEach((section) => section.redraw());
  state.theme = before;
  for (const chart of document.querySelectorAll(".chart"))
    Plotly.relayout(chart, { width: 330, height: 270 });
  for (const chart of document.querySelectorAll(".seconds")) Plotly.relayout(chart, { width: 900 });
}

buildHead();
buildToolbar();
data.datasets.forEach(buildSection);
buildAbout();
redraw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", prepareToPrint);
addEventListener("afterprint", redraw);
await loadPlotly();
redraw();
document.documentElement.dataset.ready = "true";
