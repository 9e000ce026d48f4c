// The charts, drawn by Plotly: certified accuracy over the radius for each norm, and seconds per certificate.

const HOVER = "<b>%{fullData.name}</b><br>radius %{x:.4~g}<br>%{customdata}<extra></extra>";

async function loadPlotly() {
  const script = el("script");
  script.textContent = await unzipped(document.getElementById("library").textContent);
  document.head.append(script);
}

// Plotly reads tags and entities in labels; names from the data must appear as they are.
const plotlyText = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function wrapped(text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    for (const part of word.match(new RegExp(`.{1,${width}}`, "gsu")) || [""]) {
      if (lines.at(-1) && lines.at(-1).length + part.length >= width) lines.push(part);
      else lines[lines.length - 1] += (lines.at(-1) ? " " : "") + part;
    }
  }
  return lines.map(plotlyText).join("<br>");
}

const isDark = (state) =>
  state.theme === "dark" || (state.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);

// The colour of a curve: darkened where it would be too close to white paper. On dark paper its lightness is turned
// round, so that the shades of one hue stay as far apart as they are on white.
function lineColor(curve, dark) {
  const [red, green, blue] = curve.color;
  if (!dark) {
    const light = (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
    const share = Math.min(1, 0.53 / light);
    return `rgb(${curve.color.map((channel) => Math.round(share * channel)).join(",")})`;
  }
  const [low, high] = [Math.min(...curve.color) / 255, Math.max(...curve.color) / 255];
  const now = (low + high) / 2;
  const wanted = Math.min(0.85, Math.max(0.5, 1 - now));
  // As far from grey, of what the lightness allows, as before.
  const scale = (1 - Math.abs(2 * wanted - 1)) / Math.max(1e-6, 1 - Math.abs(2 * now - 1));
  const turned = curve.color.map((channel) => Math.round(255 * (wanted + scale * (channel / 255 - now))));
  return `rgb(${turned.join(",")})`;
}

const faded = (color, opacity) => color.replace("rgb(", "rgba(").replace(")", `,${opacity})`);

// Which curves a chart of this norm shows. A free certificate also holds in the box, so a method that has no
// certificate of its own there keeps its free one.
function inDomain(dataset, norm, domain) {
  const boxed = new Set(
    dataset.curves
      .filter((curve) => curve.domain === "box" && curve.norms[norm])
      .map((curve) => curve.method),
  );
  return dataset.curves.filter((curve) => {
    if (!curve.norms[norm] || domain === "all") return Boolean(curve.norms[norm]);
    return domain === "free" ? curve.domain === "free" : curve.domain === "box" || !boxed.has(curve.method);
  });
}

// The method chosen, else the feature-convex ones, as in the figures.
const emphasised = (curve, state) => (state.method ? curveKey(curve) === state.method : curve.ours);

function curveTraces(dataset, norm, curve, state) {
  const line = curve.norms[norm];
  const dark = isDark(state);
  const color = lineColor(curve, dark);
  const radii = dataset.grids[norm];
  const keep = radii.map((_, place) => place).filter((place) => state.axis === "linear" || radii[place] > 0);
  const x = keep.map((place) => radii[place]);
  const shares = x.map((radius) => certifiedAt(line, radius));
  const end = shares.includes(0) ? shares.indexOf(0) + 1 : x.length;
  const name = wrapped(curve.title, 44);
  const plain = { x: x.slice(0, end), mode: "lines", hoverinfo: "skip", showlegend: false };
  const traces = [];
  if (state.band) {
    const ends = [line.lower, line.upper].map((side) => keep.map((place) => side[place]).slice(0, end));
    const thin = { width: 0, shape: "vh", color };
    traces.push({ ...plain, y: ends[0], line: thin });
    traces.push({
      ...plain,
      y: ends[1],
      line: thin,
      fill: "tonexty",
      fillcolor: faded(color, dark ? 0.22 : 0.14),
    });
  }
  if (state.bracket && line.uppers) {
    traces.push({
      x,
      y: x.map((radius) => unbrokenAt(line, radius)),
      name: `${name}<br>empirical: no attack known`,
      customdata: x.map((radius) => `not broken: ${percentText(unbrokenAt(line, radius))}`),
      hovertemplate: HOVER,
      mode: "lines",
      line: { color: faded(color, 0.75), width: 1.5, dash: "dot", shape: "hv" },
    });
  }
  traces.push({
    x: x.slice(0, end),
    y: shares.slice(0, end),
    name,
    customdata: keep.slice(0, end).map((place, number) => {
      const band = `95 % band ${percentText(line.lower[place])} to ${percentText(line.upper[place])}`;
      return `certified: ${percentText(shares[number])}<br>${band}`;
    }),
    hovertemplate: HOVER,
    mode: "lines+markers",
    // Between two radii of the grid nothing more is claimed than at the right one.
    line: { color, width: emphasised(curve, state) ? 3.5 : 2, dash: curve.dash, shape: "vh" },
    marker: { symbol: line.native ? curve.symbol : `${curve.symbol}-open`, size: 7, color, maxdisplayed: 7 },
  });
  return traces;
}

// The radii between which curves fall: a few odd inputs must not squeeze the rest of the chart.
function interesting(dataset, norm, curves) {
  const radii = dataset.grids[norm];
  const largest = radii.at(-1);
  let low = largest;
  let high = 0;
  for (const curve of curves) {
    const shares = radii.map((radius) => certifiedAt(curve.norms[norm], radius));
    const tail = shares.at(-1) + 0.005;
    low = Math.min(low, radii[shares.findLastIndex((share) => share >= 0.97 * shares[0])]);
    high = Math.max(
      high,
      radii[
        Math.max(
          0,
          shares.findLastIndex((share) => share > tail),
        )
      ],
    );
  }
  return [Math.min(Math.max(0.7 * low, 1e-5 * largest), largest / 10), 1.05 * high || largest];
}

// As many plain numbers on a logarithmic axis as it has room for.
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const digits = decades < 2 ? [1, 2, 5] : decades < 3.5 ? [1, 3] : [1];
  const tickvals = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    tickvals.push(...digits.map((digit) => Number(`${digit}e${power}`)));
  }
  return { tickmode: "array", tickvals, ticktext: tickvals.map(String) };
}

function layout(state, changes) {
  const ink = getComputedStyle(document.body).color;
  const grid = faded(ink.replace("rgba", "rgb"), 0.16);
  const axis = {
    gridcolor: grid,
    zerolinecolor: grid,
    linecolor: grid,
    automargin: true,
    title: { standoff: 8 },
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 12 },
    margin: { l: 48, r: 12, t: 10, b: 40 },
    showlegend: false,
    hovermode: "closest",
    hoverlabel: { align: "left" },
    // A finger on a chart scrolls the page; zooming is for those who have a mouse.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: faded(ink.replace("rgba", "rgb"), 0.4), activecolor: ink },
    autosize: true,
    ...changes,
    xaxis: { ...axis, ...changes.xaxis, title: { ...axis.title, ...changes.xaxis.title } },
    yaxis: { ...axis, ...changes.yaxis },
  };
}

const CONFIG = {
  responsive: true,
  displaylogo: false,
  displayModeBar: matchMedia("(pointer: coarse)").matches ? false : "hover",
  modeBarButtons: [["toImage", "resetScale2d"]],
};

function drawCurves(place, dataset, norm, hidden, state) {
  const curves = inDomain(dataset, norm, state.domain).filter((curve) => !hidden.has(curve));
  const traces = curves
    .filter((curve) => curve.norms[norm].radii.count > 0)
    .flatMap((curve) => curveTraces(dataset, norm, curve, state));
  const range = curves.length ? interesting(dataset, norm, curves) : [0.01, 1];
  const logarithmic = state.axis === "log";
  const changes = {
    xaxis: {
      title: { text: `${NORM_NAMES[norm]} radius` },
      type: logarithmic ? "log" : "linear",
      range: logarithmic ? [Math.log10(range[0]), Math.log10(dataset.grids[norm].at(-1))] : [0, range[1]],
      ...(logarithmic ? logTicks(range[0], dataset.grids[norm].at(-1)) : { tickmode: "auto", nticks: 7 }),
    },
    yaxis: { range: [-0.02, 1.03], tickformat: ".0%" },
  };
  return Plotly.react(place, traces, layout(state, changes), CONFIG);
}

// The calls that certify a curve's inputs: norms that share a call show the same seconds and are one.
function callsOf(curve) {
  const found = new Map();
  for (const [norm, line] of Object.entries(curve.norms)) {
    const seconds = numberOf(line.seconds_per_certificate);
    if (!(seconds > 0)) continue;
    const key = `${line.norms_in_call} ${seconds}`;
    const call = found.get(key) || { seconds, count: line.norms_in_call, norms: [] };
    call.norms.push(NORM_NAMES[norm]);
    found.set(key, call);
  }
  return [...found.values()];
}

// A row for each method and a marker for each call, its shape by how many norms the call covers.
function drawSeconds(place, dataset, state) {
  const curves = dataset.curves.filter((curve) => callsOf(curve).length);
  const symbols = { 1: "circle", 2: "square", 3: "triangle-up" };
  const calls = curves.flatMap((curve, row) => callsOf(curve).map((call) => ({ ...call, curve, row })));
  const counts = [...new Set(calls.map((call) => call.count))].sort();
  const traces = counts.map((count) => {
    const mine = calls.filter((call) => call.count === count);
    return {
      x: mine.map((call) => call.seconds),
      y: mine.map((call) => call.row),
      customdata: mine.map(
        (call) =>
          `${wrapped(call.curve.title, 44)}<br>${secondsText(call.seconds)}, ${call.norms.join(", ")}`,
      ),
      name: count === 1 ? "a call for one norm" : `one call for ${count} norms`,
      hovertemplate: "%{customdata}<extra></extra>",
      mode: "markers",
      marker: {
        symbol: symbols[count],
        size: 10,
        color: mine.map((call) => lineColor(call.curve, isDark(state))),
      },
    };
  });
  const times = traces.flatMap((trace) => trace.x);
  const narrow = place.clientWidth < 600;
  const ticks = logTicks(Math.min(...times), Math.max(...times));
  if (narrow && ticks.tickvals.length > 5)
    ticks.tickvals = ticks.tickvals.filter((_, place) => place % 2 === 0);
  const labels = curves.map((curve) => wrapped(curve.title, narrow ? 18 : 40));
  // Rows are equally high, so the longest label decides.
  const longest = Math.max(...labels.map((label) => label.split("<br>").length));
  const height = 110 + labels.length * Math.max(30, 16 * longest + 4);
  place.style.height = `${height}px`;
  const changes = {
    height,
    showlegend: true,
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    margin: { l: 20, r: 12, t: 30, b: 40 },
    xaxis: {
      title: { text: "time per certificate" },
      type: "log",
      ...ticks,
      ticktext: ticks.tickvals.map(secondsText),
    },
    yaxis: {
      tickvals: labels.map((_, row) => row),
      ticktext: labels,
      range: [labels.length - 0.5, -0.5],
      zeroline: false,
    },
  };
  return Plotly.react(place, traces, layout(state, changes), CONFIG);
}
