// What the page opens with: the verdict in words, a table of leaders, what attacks found, and all factors.

const STANDING = { ahead: "FCNN leads", even: "level", behind: "FCNN behind" };

function verdictWords() {
  const { sentences, compared, level } = data.verdict;
  if (!sentences.length)
    return [el("p", {}, "No free certificate reaches a quarter of the sensitive inputs: nobody leads.")];
  const groups = [...Map.groupBy(sentences, (sentence) => sentence.point)];
  const lists = groups.flatMap(([point, mine]) => [
    el("p", { class: "point" }, `At ${point}`),
    el(
      "ul",
      { class: "verdict" },
      mine.map((sentence) => el("li", {}, sentence.text)),
    ),
  ]);
  const share = `${100 * level} %`;
  const meaning = compared
    ? `Compared is the radius that ${share} of all sensitive test inputs are certified with, FCNN's best free certificate with the best other method's; “level” where the 95 % band of the factor, over the choice of test inputs, contains 1.`
    : `FCNN has no other method beside it in this run, so there is no factor; shown is whose radius at ${share} certified accuracy is largest.`;
  return [...lists, el("p", { class: "muted" }, meaning)];
}

function leaderCell(cell) {
  if (!cell) return el("td", { class: "text zero" }, "–");
  const dataset = data.datasets.find(
    (one) => one.dataset === cell.dataset && one.operating_point === cell.operating_point,
  );
  const curve = dataset.curves.find((one) => one.method === cell.leader);
  const mark = curve ? swatch(curve.dash, curve.symbol) : null;
  if (mark) paintings.push(() => (mark.style.color = lineColor(curve, isDark(state))));
  const address = addressOf({ data: cell.dataset, point: cell.operating_point, norm: cell.norm });
  const at = cell.level === data.verdict.level ? "" : ` at ${100 * cell.level} %`;
  const factor = cell.factor ? `FCNN × ${cell.factor} (${cell.band})${at}` : at.trim();
  return el(
    "td",
    { class: `text leader ${cell.standing}` },
    el("a", { href: address, title: STANDING[cell.standing] || "" }, mark, ` ${cell.title}`),
    factor ? el("div", { class: "muted" }, factor) : null,
  );
}

// A row for each data set and operating point, a column for each norm.
function leadersTable() {
  const { cells, compared, confidence } = data.verdict;
  const norms = Object.keys(NORM_NAMES).filter((norm) => cells.some((cell) => cell.norm === norm));
  const rows = data.datasets
    .map((dataset) => [
      dataset,
      cells.filter(
        (cell) => cell.dataset === dataset.dataset && cell.operating_point === dataset.operating_point,
      ),
    ])
    .filter(([, mine]) => mine.length)
    .map(([dataset, mine]) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, breakable(dataset.name)),
        norms.map((norm) => leaderCell(mine.find((cell) => cell.norm === norm))),
      ),
    );
  const note = compared ? `, with FCNN's factor over the best other and its ${100 * confidence} % band` : "";
  const caption = el("caption", {}, `Who leads${note}`);
  const head = ["Data set", ...norms.map((norm) => NORM_NAMES[norm])].map((title) =>
    el("th", { scope: "col", class: "text" }, title),
  );
  return el("table", {}, caption, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

function factorsTable() {
  const { factors, confidence } = data.verdict;
  const levels = Object.keys(factors[0].factors);
  const titles = ["Data set", "Operating point", "Norm", "FCNN's certificate", ...levels.map((level) => `at ${level}`)];
  const head = titles.map((title) => el("th", { scope: "col", class: "text" }, title));
  const rows = factors.map((row) => {
    const cells = [row.point, NORM_NAMES[row.norm], row.comparison, ...levels.map((level) => row.factors[level])];
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, breakable(row.dataset)),
      cells.map((text) => el("td", { class: "text" }, text)),
    );
  });
  const caption = `FCNN's radius over the best other method's at equal certified accuracy (${100 * confidence} % band; whose)`;
  return el(
    "table",
    {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, rows),
  );
}

function buildVerdict() {
  if (!data.datasets.length) return null;
  const { cells, attack, factors } = data.verdict;
  return el(
    "section",
    { id: "verdict", "aria-label": "Verdict" },
    el("h2", {}, "Verdict"),
    verdictWords(),
    cells.length ? scrollable("Who leads", leadersTable()) : null,
    el("p", { class: attack.bad ? "status bad" : "attack" }, attack.text),
    factors.length ? folded("All factors", "factors", scrollable("All factors", factorsTable())) : null,
  );
}
