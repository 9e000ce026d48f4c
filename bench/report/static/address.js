// The state of the page in the fragment of its address, so that a link opens the same view.

// What the address may hold, and what it means where it says nothing.
const START = { data: "", point: "", norm: "", method: "", curves: "", axis: "linear", domain: "all", open: "" };

function readAddress() {
  const found = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.entries(START).map(([name, usual]) => [name, found.get(name) ?? usual]));
}

function addressOf(view) {
  const parts = new URLSearchParams();
  for (const [name, usual] of Object.entries(START)) if ((view[name] ?? usual) !== usual) parts.set(name, view[name]);
  return `#${parts}`;
}

// A curve's name in the address.
const curveKey = (curve) => `${curve.method}/${curve.certificate}/${curve.domain}`;

// Which data set and operating point an address means: the first that fits, else the first of all.
function chosenSection(view) {
  const fits = (section) =>
    (!view.data || section.dataset.dataset === view.data) &&
    (!view.point || section.dataset.operating_point === view.point);
  return (
    sections.find(fits) || sections.find((section) => section.dataset.dataset === view.data) || sections[0]
  );
}

// Curves are in the address only where they are not those shown at first.
function shownCurves(section) {
  const shown = section.dataset.curves.filter((curve) => !section.hidden.has(curve));
  const first = section.dataset.curves.filter((curve) => curve.shown);
  const same = shown.length === first.length && shown.every((curve) => curve.shown);
  return same ? "" : shown.map(curveKey).join(" ") || "none";
}

function writeAddress() {
  if (!current) return;
  const { dataset } = current;
  // The first section is what an address that names none opens.
  const first = current === sections[0];
  const view = {
    ...state,
    data: first ? "" : dataset.dataset,
    point: first ? "" : dataset.operating_point,
    curves: shownCurves(current),
    open: [...document.querySelectorAll("details[data-fold]")]
      .filter((part) => part.open && !part.closest("[hidden]"))
      .map((part) => part.dataset.fold)
      .join(" "),
  };
  const address = addressOf(view);
  if (address !== (location.hash || "#")) history.replaceState(null, "", address);
}

// Bring the page to what its address says. Anchors such as #about say nothing and change nothing.
function followAddress() {
  if (location.hash && !location.hash.includes("=")) return;
  const view = readAddress();
  for (const name of ["norm", "method", "axis", "domain"]) state[name] = view[name];
  if (sections.length) {
    current = chosenSection(view);
    const named = new Set(view.curves.split(" "));
    const keep = (curve) => (view.curves ? named.has(curveKey(curve)) : curve.shown);
    current.hidden = new Set(current.dataset.curves.filter((curve) => !keep(curve)));
  }
  const open = new Set(view.open.split(" "));
  for (const part of document.querySelectorAll("details[data-fold]"))
    if (!part.closest("[hidden]")) part.open = open.has(part.dataset.fold);
  redraw();
}
