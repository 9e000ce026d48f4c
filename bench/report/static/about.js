// The end of the page: how to read it, where it comes from, what can be saved.

const READING = [
  [
    "operating point",
    "where the threshold of a method is set, on validation data: balanced recalls of the two classes, or the most sensitive inputs found at a given recall of the other class.",
  ],
  [
    "leaders",
    "of each family of methods and norm one curve, chosen without test data as in the figures; where a run has many curves these are shown first.",
  ],
  [
    "Certified accuracy at r",
    "share of the sensitive test inputs that are classified right and certified with a radius of at least r. Radii and shares are cut, never rounded up.",
  ],
  [
    "anywhere, in the box",
    "the perturbed input may be any point, or stays in [0, 1] in every coordinate. A certificate that holds anywhere also holds in the box: a method without one of its own there is shown with that one.",
  ],
  [
    "deterministic, probabilistic",
    "holds always, or with probability 1 − α over the method's own random draws, for each input, as far as a computer's draws are the real numbers of the proof.",
  ],
  [
    "native, converted",
    "the method's own radius in this norm, or one converted from another norm (hollow markers).",
  ],
  [
    "95 % band",
    "where certified accuracy may lie, given the number of test inputs and the spread between seeds.",
  ],
  [
    "empirical upper end",
    "share of inputs for which no adversarial example of that size is known (dotted): true robust accuracy lies between the two lines.",
  ],
];

function summaryCsv() {
  const facts = [
    "guarantee",
    "native",
    "calibrated_on",
    "near_chance",
    "resolved",
    "seeds",
    "inputs",
    "recall_sensitive",
    "recall_other",
    "mean_radius",
    "median_radius",
    "seconds_per_certificate",
  ];
  const outcomes = Object.keys(data.advice);
  const rows = data.datasets.flatMap((dataset) =>
    dataset.curves.flatMap((curve) =>
      Object.entries(curve.norms).map(([norm, line]) => [
        dataset.dataset,
        dataset.operating_point,
        curve.method,
        curve.certificate,
        curve.domain,
        norm,
        ...facts.map((name) => line[name]),
        ...outcomes.map((outcome) => line.outcomes[outcome]),
      ]),
    ),
  );
  const head = ["dataset", "operating_point", "method", "certificate", "domain", "norm", ...facts, ...outcomes];
  return [head, ...rows].map((row) => row.map(csvCell).join(",")).join("\n") + "\n";
}

async function rowsCsv() {
  return unzipped(document.getElementById("rows").textContent);
}

// Every setting that tuning tried, folded away: a long table.
function candidatesTable() {
  const { columns, rows } = data.candidates;
  if (!rows.length) return "";
  const head = columns.map((name) => el("th", { scope: "col", class: "text" }, name.replaceAll("_", " ")));
  const body = rows.map((row) => el("tr", {}, ...row.map((value) => el("td", { class: "text" }, value))));
  const table = el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  const title = `Candidates of the tuning (${rows.length}), judged on validation data`;
  return folded(title, "candidates", scrollable(title, table));
}

function buildAbout() {
  const button = (text, clicked) => el("button", { type: "button", onclick: clicked }, text);
  const rows = data.rows_beside
    ? el("a", { href: data.rows_beside, download: true }, `All rows: ${data.rows_beside}, beside this page`)
    : button("All rows (radii.csv)", async () => save("radii.csv", await rowsCsv()));
  const methods = Object.entries(data.methods).map(([name, method]) => [
    name,
    [method.title, method.guarantee, method.reference].filter(Boolean).join("; "),
  ]);
  const record = (title, value) =>
    folded(title, title.split(" ")[0].toLowerCase(), el("pre", { tabindex: "0" }, JSON.stringify(value, null, 2)));
  document.getElementById("foot").append(
    el("h2", { id: "about" }, "About these numbers"),
    folded("Every term, explained", "terms", definitions(READING)),
    lines.some((line) => line.radii.block > 1)
      ? el(
          "p",
          {},
          "This run is large: some neighbouring radii are counted as the smallest of them, so certified accuracy may be shown a little too low.",
        )
      : "",
    folded("Methods and their sources", "sources", definitions(methods)),
    el("h3", {}, "Settings and versions"),
    candidatesTable(),
    record("Settings", data.record.configuration),
    record("Versions and code", { ...data.record.versions, ...data.record.code }),
    record("Hardware and time", { ...data.record.hardware, ...data.record.times }),
    el("h3", {}, "Downloads"),
    el(
      "div",
      { class: "downloads" },
      rows,
      button("Summary (summary.csv)", () => save("summary.csv", summaryCsv())),
    ),
  );
}
