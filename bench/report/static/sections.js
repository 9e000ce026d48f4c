// One data set's part of the page: legend, charts, tables, inputs, timings and outcomes.

function buildLegend(section) {
  const show = (curve, shown) => (shown ? section.hidden.delete(curve) : section.hidden.add(curve));
  const buttons = section.dataset.curves.map((curve) => {
    const toggle = () => {
      show(curve, section.hidden.has(curve));
      section.redraw();
      writeAddress();
    };
    return el("button", { type: "button", onclick: toggle }, swatch(curve.dash, curve.symbol), curve.title);
  });
  const everything = (text, shown) => {
    const change = () => {
      section.dataset.curves.forEach((curve) => show(curve, shown(curve)));
      section.redraw();
      writeAddress();
    };
    return el("button", { type: "button", class: "all", onclick: change }, text);
  };
  section.paintLegend = () =>
    section.dataset.curves.forEach((curve, place) => {
      buttons[place].setAttribute("aria-pressed", String(!section.hidden.has(curve)));
      buttons[place].querySelector("svg").style.color = lineColor(curve, isDark(state));
    });
  const first = buttons.filter((_, place) => section.dataset.curves[place].shown);
  const rest = buttons.filter((button) => !first.includes(button));
  const legend = (parts) => el("div", { class: "legend", role: "group", "aria-label": "Curves shown" }, parts);
  const changes = [
    rest.length ? everything("Show the leaders only", (curve) => curve.shown) : null,
    everything("Show all", () => true),
    everything("Hide all", () => false),
  ];
  return [
    legend([...first, ...changes]),
    rest.length ? folded(`${rest.length} more curves`, "curves", legend(rest)) : null,
  ];
}

function buildCharts(section) {
  const { dataset } = section;
  const figures = dataset.norms.map((norm) => {
    const mine = dataset.curves.filter((curve) => curve.norms[norm]);
    const certified = mine.filter((curve) => curve.norms[norm].radii.count > 0);
    const absent = mine.filter((curve) => !certified.includes(curve)).map((curve) => curve.title);
    const caption = el("figcaption", {}, `${NORM_NAMES[norm]} perturbations`);
    if (absent.length) caption.append(el("span", {}, ` (nothing certified: ${absent.join(", ")})`));
    if (!certified.length)
      return el("figure", {}, caption, el("p", { class: "empty" }, "Nothing was certified in this norm."));
    const label = `Certified accuracy over the ${NORM_NAMES[norm]} radius; the table below has the values`;
    const place = el("div", { class: "chart", role: "img", "aria-label": label, "data-norm": norm });
    section.drawings.push(() => drawCurves(place, dataset, norm, section.hidden, state));
    return el("figure", { "data-norm": norm }, caption, place);
  });
  return [
    el("div", { class: "charts" }, figures),
    explained(
      ["Certified accuracy", "at a radius r: share of the sensitive test inputs that are classified right and certified with a radius of at least r."],
      ["Radius", "how far an input may be changed, measured in the norm of the chart, before its class could change; inputs lie in [0, 1]."],
      ["Hollow markers", "the radius is converted from another norm."],
      ["(box)", "the changed input stays in [0, 1]; all others may go anywhere."],
    ),
  ];
}

// What an operating point is, for the one that a section shows.
function explainPoint(dataset) {
  return explained([
    `Operating point: ${dataset.point}.`,
    "The threshold of every method is chosen on validation data so that the recalls of the two classes are what this says; on test data they may differ, see the table of methods.",
  ]);
}

function buildMethods(section) {
  const { dataset } = section;
  const radii = Object.fromEntries(dataset.norms.map((norm) => [norm, dataset.named[norm]]));
  const view = { norm: "", radii, filter: "", guarantee: "all", native: "all", sort: "", descending: true };
  const place = scrollable(`Methods on ${dataset.name}`, "");
  const problem = el("p", { class: "problem", role: "alert" });
  const typed = el("input", { type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false" });
  const draw = () => {
    const focused = document.activeElement?.dataset.column;
    place.replaceChildren(methodTable(dataset, view, state, sorted));
    if (focused)
      [...place.querySelectorAll("thead button")]
        .find((button) => button.dataset.column === focused)
        ?.focus();
  };
  const sorted = (column) => {
    // Numbers start with the largest, names with the first letter; a second press turns the order round.
    view.descending = view.sort === column.title ? !view.descending : column.kind !== "text";
    view.sort = column.title;
    draw();
  };
  const read = () => {
    const result = typedRadii(typed.value);
    problem.textContent = result.problem;
    typed.setAttribute("aria-invalid", String(result.problem !== ""));
    if (result.problem === "") view.radii[view.norm] = result.radii;
    draw();
  };
  const norms = normChoice(dataset);
  // The norm is the page's: where it has changed, so have the radii to name.
  const follow = () => {
    norms.follow();
    if (view.norm === shownNorm(dataset)) return draw();
    view.norm = shownNorm(dataset);
    typed.value = view.radii[view.norm].join(", ");
    read();
  };
  const set = (name) => (value) => {
    view[name] = value;
    draw();
  };
  typed.addEventListener("input", read);
  const search = el("input", { type: "search", oninput: (event) => set("filter")(event.target.value) });
  section.tables.push(follow);
  return folded(
    "All methods, in numbers",
    "methods",
    el(
      "div",
      { class: "controls" },
      norms.group,
      field("Certified accuracy at radii", typed),
      field("Find a method", search),
      dropdown(
        "Guarantee",
        [
          ["all", "any"],
          ["deterministic", "deterministic"],
          ["probabilistic", "probabilistic"],
        ],
        set("guarantee"),
      ),
      dropdown(
        "Radius",
        [
          ["all", "native or converted"],
          ["native", "native"],
          ["converted", "converted"],
        ],
        set("native"),
      ),
    ),
    problem,
    place,
    explained(
      ["Recall", "share of a class's test inputs that are predicted as that class."],
      ["Mean, median radius", "over all sensitive test inputs; one that is not certified counts as 0."],
      ["Time", "of the call that certifies an input; it may cover several norms at once."],
      ["Deterministic", "holds always;"],
      ["probabilistic", "with probability 1 − α over the method's own draws, for each input."],
      ["Native", "the method's own radius in this norm;"],
      ["converted", "from another norm."],
      ["Domain free", "the changed input may go anywhere;"],
      ["box", "it stays in [0, 1]."],
    ),
  );
}

// The norm that tables and inputs show: the one chosen, else l2.
function shownNorm(dataset) {
  if (dataset.norms.includes(state.norm)) return state.norm;
  return dataset.norms.includes("l2") ? "l2" : dataset.norms[0];
}

function normChoice(dataset) {
  const choose = (norm) => {
    state.norm = norm;
    redraw();
  };
  const options = dataset.norms.map((norm) => [norm, NORM_NAMES[norm]]);
  const group = choice("Norm", options, shownNorm(dataset), choose);
  const follow = () => {
    for (const input of group.querySelectorAll("input")) input.checked = input.value === shownNorm(dataset);
  };
  return { group, follow };
}

function buildInputs(section) {
  const { dataset } = section;
  const certified = dataset.curves.filter((curve) =>
    Object.values(curve.norms).some((line) => line.radii.count > 0),
  );
  if (!certified.length) return null;
  const cards = certified.flatMap((curve) =>
    Object.values(curve.norms).flatMap((line) => Object.values(line.ends).flat()),
  );
  const known = !dataset.pictures.length || cards.some((card) => card.adversarial);
  const note =
    dataset.picture_note || (known ? "" : "python -m bench.report OUT --attack adds adversarial examples.");
  const place = el("div", {});
  const norms = normChoice(dataset);
  const options = certified.map((curve) => [curveKey(curve), curve.title]);
  const list = dropdown("Method", options, (method) => {
    state.method = method;
    redraw();
  });
  section.tables.push(() => {
    const curve = certified.find((one) => curveKey(one) === state.method) || certified[0];
    norms.follow();
    list.querySelector("select").value = curveKey(curve);
    place.replaceChildren(...inputCards(dataset, curve, shownNorm(dataset)));
  });
  return folded(
    "Least and most robust inputs",
    "inputs",
    note ? el("p", { class: "muted" }, note) : null,
    el("div", { class: "controls inputs" }, norms.group, list),
    place,
  );
}

function buildSeconds(section) {
  const { dataset } = section;
  const timed = dataset.curves.some((curve) =>
    Object.values(curve.norms).some((line) => numberOf(line.seconds_per_certificate) > 0),
  );
  if (!timed) return null;
  const place = el("div", {
    class: "seconds",
    role: "img",
    "aria-label": "Seconds per certificate; the table of methods has the values",
  });
  section.drawings.push(() => place.offsetWidth && drawSeconds(place, dataset, state));
  return folded(
    "Time per certificate",
    "seconds",
    el(
      "p",
      { class: "muted" },
      "Seconds of the call that certifies an input, mean over the inputs that were predicted sensitive. A call may cover several norms at once: only equal markers compare.",
    ),
    el("figure", {}, place),
  );
}

function buildOutcomes(section) {
  const { dataset } = section;
  const outcomes = Object.keys(data.advice);
  const reasons = reasonTable(dataset);
  return folded(
    "Outcomes: certified, abstained, failed",
    "outcomes",
    scrollable(`Outcomes on ${dataset.name}`, outcomeTable(dataset, outcomes)),
    definitions(outcomes.map((outcome) => [outcome, data.advice[outcome]])),
    reasons && el("h4", {}, "Reasons given"),
    reasons && scrollable(`Reasons on ${dataset.name}`, reasons),
  );
}

function datasetFacts(dataset) {
  const first = Object.values(dataset.curves[0].norms)[0];
  const facts = [`${first.inputs} sensitive test inputs`, `${first.seeds} seed${first.seeds > 1 ? "s" : ""}`];
  if (dataset.classes.length) facts.unshift(`sensitive: ${dataset.classes[0]}, other: ${dataset.classes[1]}`);
  return facts.join(" · ");
}

// The radii of a user's table in the units of its own columns; empty for other runs.
function buildUnits(dataset) {
  const { columns, rows } = data.units;
  const mine = rows.filter(
    (row) =>
      row[columns.indexOf("dataset")] === dataset.dataset &&
      (!columns.includes("operating_point") || row[columns.indexOf("operating_point")] === dataset.operating_point),
  );
  if (!mine.length) return null;
  return folded("Radii in the columns' own units", "units", unitsTable(dataset, columns, mine));
}

function buildSection(dataset, place) {
  const hidden = new Set(dataset.curves.filter((curve) => !curve.shown));
  const section = { dataset, hidden, drawings: [], tables: [] };
  section.redraw = () => {
    section.paintLegend();
    section.tables.forEach((draw) => draw());
    if (window.Plotly) section.drawings.forEach((draw) => draw());
  };
  const parts = [
    el("h2", { id: `data-${place}`, tabindex: "-1" }, dataset.name),
    el("p", { class: "muted" }, datasetFacts(dataset)),
    buildLegend(section),
    buildCharts(section),
    explainPoint(dataset),
    buildMethods(section),
    buildUnits(dataset),
    buildInputs(section),
    buildSeconds(section),
    buildOutcomes(section),
  ];
  section.node = el("section", {}, parts.flat().filter(Boolean));
  sections.push(section);
  document.getElementById("main").append(section.node);
}
