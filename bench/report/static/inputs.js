// The inputs with the smallest and the largest certified radius, beside the nearest adversarial examples known.

function image(dataset, number, description) {
  return el("img", { src: dataset.pictures[number], alt: description, width: 96, height: 96 });
}

function inputCard(dataset, card) {
  const radius = radiusText(numberOf(card.radius));
  const found = card.adversarial;
  const pair = [];
  if (card.picture !== null) pair.push(image(dataset, card.picture, `input ${card.index}`));
  if (found && found.picture !== null)
    pair.push(image(dataset, found.picture, `adversarial example of input ${card.index}`));
  const lines = [el("p", {}, `Input ${card.index}: radius ${radius}`)];
  if (found) {
    const text = found.breaks
      ? "BROKEN: adversarial example inside the radius, at"
      : "Adversarial example at";
    lines.push(
      el("p", { class: found.breaks ? "status bad" : "muted" }, `${text} ${found.distance.toPrecision(4)}`),
    );
  }
  return el(
    "li",
    { class: found ? "card paired" : "card" },
    pair.length ? el("div", { class: "pair" }, pair) : null,
    lines,
  );
}

// One row: the smallest radii first, then the largest, each input beside its nearest adversarial example.
function inputCards(dataset, curve, norm) {
  const ends = curve && curve.norms[norm] ? curve.norms[norm].ends : { smallest: [], largest: [] };
  if (!ends.smallest.length) return [el("p", { class: "empty" }, "Nothing was certified here.")];
  const list = (title, cards) =>
    cards.length
      ? [
          el(
            "div",
            { class: "end" },
            el("h4", {}, title),
            el(
              "ul",
              { class: "cards" },
              cards.map((card) => inputCard(dataset, card)),
            ),
          ),
        ]
      : [];
  const row = [
    ...list("Smallest certified radius", ends.smallest),
    ...list("Largest certified radius", ends.largest),
  ];
  return [scrollable("Inputs, in one row", el("div", { class: "ends" }, row))];
}
