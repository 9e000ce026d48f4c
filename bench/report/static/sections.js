// One data set's part of the page: legend, charts, tables, inputs, timings and outcomes.

function buildLegend(section) {
  const show = (curve, shown) => (shown ? section.hidden.delete(curve) : section.hidden.add(curve));
  const buttons = section.dataset.curves.map((curve) => {
    const toggle = () => {
      show(curve, section.hidden.has(curve));
      section.redraw();
    };
    return el("button", { type: "button", onclick: toggle }, swatch(curve.dash, curve.symbol), curve.title);
  });
  const everything = (text, shown) => {
    const change = () => {
      section.dataset.curves.forEach((curve) => show(curve, shown));
      section.redraw();
    };
    return el("button", { type: "button", class: "all", onclick: change }, text);
  };
  section.paintLegend = () =>
    section.dataset.curves.forEach((curve, place) => {
      buttons[place].setAttribute("aria-pressed", String(!section.hidden.has(curve)));
      buttons[place].querySelector("svg").style.color = lineColor(curve, isDark(state));
    });
  return el(
    "div",
    { class: "legend", role: "group", "aria-label": "Curves shown" },
    buttons,
    everything("Show all", true),
    everything("Hide all", false),
  );
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
    return el("figure", {}, caption, place);
  });
  return el("div", { class: "charts" }, figures);
}

function buildMethods(section) {
  const { dataset } = section;
  const radii = Object.fromEntries(dataset.norms.map((norm) => [norm, dataset.named[norm]]));
  const view = {
    norm: dataset.norms.at(-1),
    radii,
    filter: "",
    guarantee: "all",
    native: "all",
    sort: "",
    descending: true,
  };
  if (dataset.norms.includes("l2")) view.norm = "l2";
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
  const choose = (norm) => {
    view.norm = norm;
    typed.value = view.radii[norm].join(", ");
    read();
  };
  const set = (name) => (value) => {
    view[name] = value;
    draw();
  };
  typed.addEventListener("input", read);
  const search = el("input", { type: "search", oninput: (event) => set("filter")(event.target.value) });
  section.tables.push(draw);
  choose(view.norm);
  return [
    el("h3", {}, "Methods"),
    el(
      "div",
      { class: "controls" },
      choice(
        "Norm",
        dataset.norms.map((norm) => [norm, NORM_NAMES[norm]]),
        view.norm,
        choose,
      ),
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
  ];
}

function buildInputs(section) {
  const { dataset } = section;
  const certified = dataset.curves.filter((curve) =>
    Object.values(curve.norms).some((line) => line.radii.count > 0),
  );
  if (!certified.length) return [];
  const cards = certified.flatMap((curve) =>
    Object.values(curve.norms).flatMap((line) => Object.values(line.ends).flat()),
  );
  const known = !dataset.pictures.length || cards.some((card) => card.adversarial);
  const note =
    dataset.picture_note || (known ? "" : "python -m bench.report OUT --attack adds adversarial examples.");
  const place = el("div", {});
  const view = { curve: certified[0], norm: dataset.norms.includes("l2") ? "l2" : dataset.norms[0] };
  const draw = () => place.replaceChildren(...inputCards(dataset, view.curve, view.norm));
  const options = certified.map((curve, number) => [number, curve.title]);
  const chooseCurve = (number) => {
    view.curve = certified[number];
    draw();
  };
  const chooseNorm = (norm) => {
    view.norm = norm;
    draw();
  };
  draw();
  return [
    el("h3", {}, "Least and most robust inputs"),
    note ? el("p", { class: "muted" }, note) : null,
    el(
      "div",
      { class: "controls inputs" },
      choice(
        "Norm",
        dataset.norms.map((norm) => [norm, NORM_NAMES[norm]]),
        view.norm,
        chooseNorm,
      ),
      dropdown("Method", options, chooseCurve),
    ),
    place,
  ];
}

function buildSeconds(section) {
  const { dataset } = section;
  const timed = dataset.curves.some((curve) =>
    Object.values(curve.norms).some((line) => numberOf(line.seconds_per_certificate) > 0),
  );
  if (!timed) return [];
  const place = el("div", {
    class: "seconds",
    role: "img",
    "aria-label": "Seconds per certificate; the table above has the values",
  });
  section.drawings.push(() => drawSeconds(place, dataset, state));
  return [
    el("h3", {}, "Time per certificate"),
    el("p", { class: "muted" }, "Mean over the inputs that were predicted sensitive."),
    el("figure", {}, place),
  ];
}

function buildOutcomes(section) {
  const { dataset } = section;
  const outcomes = Object.keys(data.advice);
  const reasons = reasonTable(dataset);
  return [
    el("h3", {}, "Outcomes"),
    scrollable(`Outcomes on ${dataset.name}`, outcomeTable(dataset, outcomes)),
    definitions(outcomes.map((outcome) => [outcome, data.advice[outcome]])),
    reasons && el("h4", {}, "Reasons given"),
    reasons && scrollable(`Reasons on ${dataset.name}`, reasons),
  ];
}

function datasetFacts(dataset) {
  const first = Object.values(dataset.curves[0].norms)[0];
  const facts = [`${first.inputs} sensitive test inputs`, `${first.seeds} seed${first.seeds > 1 ? "s" : ""}`];
  if (dataset.classes.length) facts.unshift(`sensitive: ${dataset.classes[0]}, other: ${dataset.classes[1]}`);
  return facts.join(" · ");
}

function buildSection(dataset, place) {
  const section = { dataset, hidden: new Set(), drawings: [], tables: [] };
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
    ...buildMethods(section),
    ...buildInputs(section),
    ...buildSeconds(section),
    ...buildOutcomes(section),
  ];
  sections.push(section);
  document.getElementById("main").append(el("section", {}, parts.filter(Boolean)));
}
