// The table of methods, which can be sorted and filtered, and the table of outcomes.

const number = (read, text) => ({ read: (line) => numberOf(line[read]), text });
const COLUMNS = [
  { title: "Method", text: (value) => value, read: (line, curve) => curve.title, kind: "text" },
  { title: "Recall, sensitive", ...number("recall_sensitive", percentText) },
  { title: "Recall, other", ...number("recall_other", percentText) },
  { title: "Mean radius", ...number("mean_radius", radiusText) },
  { title: "Median radius", ...number("median_radius", radiusText) },
  {
    title: "Time per certificate",
    ...number("seconds_per_certificate", secondsText),
    more: (line) => (line.norms_in_call > 1 ? `, ${line.norms_in_call} norms` : ""),
  },
  { title: "Guarantee", text: (value) => value, read: (line) => guarantee(line), kind: "text" },
  {
    title: "Radius",
    text: (value) => value,
    read: (line) => (line.native ? "native" : "converted"),
    kind: "text",
  },
  { title: "Domain", text: (value) => value, read: (line, curve) => curve.domain, kind: "text" },
];
const ACCURACY_PLACE = 3;

function guarantee(line) {
  if (line.guarantee !== "probabilistic") return line.guarantee;
  return `probabilistic, α = ${line.alpha}`;
}

const remarks = (line) =>
  (line.calibrated_on === "test" ? " (threshold chosen on test data)" : "") +
  (line.near_chance ? " (near chance, or far below the others)" : "") +
  (line.resolved ? "" : " (too few validation inputs to resolve this operating point)");

function methodColumns(view) {
  const accuracy = view.radii[view.norm].map((radius) => ({
    title: `Certified at ${radius}`,
    read: (line) => certifiedAt(line, radius),
    text: percentText,
  }));
  return [...COLUMNS.slice(0, ACCURACY_PLACE), ...accuracy, ...COLUMNS.slice(ACCURACY_PLACE)];
}

// Rows [curve, line] that pass the filters, in the order asked for; what is missing comes last either way.
function methodRows(dataset, view, state) {
  const words = view.filter.toLowerCase().split(/\s+/);
  const rows = inDomain(dataset, view.norm, state.domain)
    .map((curve) => [curve, curve.norms[view.norm]])
    .filter(([curve]) => words.every((word) => `${curve.title} ${curve.method}`.toLowerCase().includes(word)))
    .filter(([, line]) => view.guarantee === "all" || line.guarantee === view.guarantee)
    .filter(([, line]) => view.native === "all" || (view.native === "native") === line.native);
  const column = methodColumns(view).find((candidate) => candidate.title === view.sort);
  if (!column) return rows;
  const missing = (value) => typeof value === "number" && Number.isNaN(value);
  const order = (one, other) => {
    const [a, b] = [column.read(one[1], one[0]), column.read(other[1], other[0])];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const sign = column.kind === "text" ? a.localeCompare(b) : a === b ? 0 : a < b ? -1 : 1;
    return view.descending ? -sign : sign;
  };
  return rows.sort(order);
}

function methodTable(dataset, view, state, sorted) {
  const columns = methodColumns(view);
  const head = columns.map((column) => {
    const chosen = view.sort === column.title;
    const arrow = chosen ? (view.descending ? " ▼" : " ▲") : "";
    const button = el(
      "button",
      { type: "button", "data-column": column.title, onclick: () => sorted(column) },
      column.title + arrow,
    );
    const order = chosen ? (view.descending ? "descending" : "ascending") : "none";
    return el("th", { scope: "col", class: column.kind, "aria-sort": order }, button);
  });
  const rows = methodRows(dataset, view, state).map(([curve, line]) => {
    const cells = columns
      .slice(1)
      .map((column) => {
        const text = column.text(column.read(line, curve)) + (column.more ? column.more(line) : "");
        return el("td", { class: column.kind }, text);
      });
    return el("tr", {}, el("th", { scope: "row" }, curve.title + remarks(line)), cells);
  });
  if (!rows.length)
    rows.push(
      el("tr", {}, el("td", { class: "text", colspan: columns.length }, "No method passes the filters.")),
    );
  const caption = el("caption", {}, `${NORM_NAMES[view.norm]} perturbations`);
  return el("table", {}, caption, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

const ALARMS = ["timeout", "error"];

function outcomeTable(dataset, outcomes) {
  const groups = dataset.curves.map((curve) => [curve, dataset.norms.filter((norm) => curve.norms[norm])]);
  const attacked = groups.some(([curve, norms]) => norms.some((norm) => curve.norms[norm].attacked));
  const titles = ["Method", "Norm", ...outcomes, ...(attacked ? ["attacked", "broken"] : [])];
  const row = (curve, norms, name) => {
    const line = curve.norms[norms[0]];
    const counts = outcomes.map((outcome) => {
      const count = line.outcomes[outcome];
      const alarm = count > 0 && ALARMS.includes(outcome);
      return el("td", { class: alarm ? "bad" : count ? "" : "zero" }, String(count));
    });
    const attacks = attacked ? attackCells(line.attacked) : [];
    return el("tr", {}, name, el("td", { class: "text" }, norms.map((norm) => NORM_NAMES[norm]).join(", ")), counts, attacks);
  };
  const bodies = groups.map(([curve, norms]) => {
    // Norms with the same counts share a row.
    const counts = ({ outcomes, attacked }) => JSON.stringify([outcomes, attacked]);
    const rows = [...Map.groupBy(norms, (norm) => counts(curve.norms[norm])).values()];
    const name = el("th", { scope: "rowgroup", rowspan: rows.length }, curve.title);
    return el(
      "tbody",
      {},
      rows.map((alike, place) => row(curve, alike, place ? null : name)),
    );
  });
  const head = titles.map((title) =>
    el("th", { scope: "col", class: title === "Norm" ? "text" : "" }, title),
  );
  return el("table", {}, el("thead", {}, el("tr", {}, head)), bodies);
}

function attackCells(found) {
  if (!found) return [el("td", { class: "zero" }, "–"), el("td", { class: "zero" }, "–")];
  const [attacked, broken, allowed] = found;
  const text = allowed ? `${broken} (${allowed} allowed)` : String(broken);
  return [
    el("td", {}, String(attacked)),
    el("td", { class: broken > allowed ? "bad" : broken ? "" : "zero" }, text),
  ];
}

// Why inputs were not certified: equal reasons together, those of failures first.
function reasonTable(dataset) {
  const found = new Map();
  for (const curve of dataset.curves) {
    for (const [norm, line] of Object.entries(curve.norms)) {
      for (const [outcome, reason, count] of line.reasons) {
        const key = JSON.stringify([outcome, reason]);
        const entry = found.get(key) || { outcome, reason, count: 0, where: new Map() };
        entry.count += count;
        entry.where.set(curve.title, [...(entry.where.get(curve.title) || []), NORM_NAMES[norm]]);
        found.set(key, entry);
      }
    }
  }
  if (!found.size) return null;
  const alarm = (entry) => ALARMS.includes(entry.outcome);
  const entries = [...found.values()].sort(
    (one, other) => alarm(other) - alarm(one) || other.count - one.count,
  );
  const rows = entries.slice(0, 60).map((entry) => {
    const where = [...entry.where].map(([title, norms]) => `${title}: ${norms.join(", ")}`).join("; ");
    const cells = [String(entry.count), where, entry.reason].map((text, place) =>
      el("td", { class: place ? "text wrap" : "" }, text),
    );
    return el("tr", {}, el("td", { class: alarm(entry) ? "bad text" : "text" }, entry.outcome), cells);
  });
  const head = ["Outcome", "Inputs", "Where", "Reason"].map((title, place) =>
    el("th", { scope: "col", class: place > 1 ? "text" : "" }, title),
  );
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

// What the median radius of each curve means for each column of a table, numbers as they were cut for reading.
function unitsTable(dataset, columns, rows) {
  const at = (row, name) => row[columns.indexOf(name)];
  const curves = new Map(dataset.curves.map((curve) => [curveKey(curve), curve]));
  const body = rows
    .map((row) => [row, curves.get([at(row, "method"), at(row, "certificate"), at(row, "domain")].join("/"))])
    .filter(([, curve]) => curve)
    .map(([row, curve]) => {
      const change = radiusText(Number(at(row, "median_change")));
      const percent = `${radiusText(Number(at(row, "percent_of_range")))} %`;
      const cells = [NORM_NAMES[at(row, "norm")], at(row, "column"), change, percent];
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, curve.title),
        cells.map((text, place) => el("td", { class: place < 2 ? "text" : "" }, text)),
      );
    });
  const head = ["Method", "Norm", "Column", "Change, in its unit", "of its range"].map((title, place) =>
    el("th", { scope: "col", class: place < 3 ? "text" : "" }, title),
  );
  const caption =
    "Half of the sensitive inputs stay so for smaller changes. ℓ₁, ℓ₂: of one column alone; ℓ∞: of all columns at once.";
  const table = el(
    "table",
    {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, body),
  );
  return scrollable(`Own units on ${dataset.name}`, table);
}
