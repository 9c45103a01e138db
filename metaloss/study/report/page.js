"use strict";
// Charts are drawn when they come into view, in the colours of the page.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function contentOf(plot) {
  return JSON.parse(document.querySelector(`script[data-for="${plot.id}"]`).textContent);
}

function merged(base, more) {
  for (const [key, value] of Object.entries(more)) {
    const both = value && base[key] && typeof value === "object" && !Array.isArray(value);
    base[key] = both ? merged(base[key], value) : value;
  }
  return base;
}

function layoutOf(own) {
  const axis = () => ({
    gridcolor: color("--line"), linecolor: color("--line"), zeroline: false,
    automargin: true, title: { standoff: 8 },
  });
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: COLORS,
    font: { color: color("--ink"), size: 12, family: "system-ui, DejaVu Sans, sans-serif" },
    margin: { l: 52, r: 12, t: 12, b: 40 }, hovermode: "x unified", hoverdistance: -1,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--faint"), activecolor: color("--accent") },
    hoverlabel: { bgcolor: color("--card"), bordercolor: color("--line") },
    legend: { orientation: "h", yanchor: "bottom", y: 1, x: 0 },
    xaxis: axis(), yaxis: axis(),
    autotypenumbers: "strict",  // a name such as "0.5" is not a number
  };
  return merged(layout, structuredClone(own));
}

function draw(plot) {
  const content = contentOf(plot);
  const moment = plot.dataset.moment;
  const traces = content.traces.map((trace) => {
    const shown = { ...trace };
    if (trace.moments) shown.y = trace.moments[moment ?? trace.moments.length - 1];
    delete shown.moments;
    return shown;
  });
  plot.dataset.drawn = "yes";
  return Plotly.react(plot, traces, layoutOf(content.layout), {
    responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  });
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }
}, { rootMargin: "300px" });
document.querySelectorAll(".plot").forEach((plot) => seen.observe(plot));
dark.addEventListener("change", () => {
  document.querySelectorAll(".plot[data-drawn]").forEach(draw);
});

for (const slider of document.querySelectorAll(".slider")) {
  const moments = JSON.parse(slider.dataset.moments);
  const input = slider.querySelector("input");
  const show = () => {
    slider.querySelector("output").textContent = moments[input.value].toLocaleString("en");
    for (const plot of slider.querySelectorAll(".plot")) {
      plot.dataset.moment = input.value;
      if (plot.dataset.drawn) draw(plot);
    }
  };
  input.addEventListener("input", show);
  show();
}

for (const chooser of document.querySelectorAll(".chooser")) {
  const select = chooser.querySelector("select");
  select.addEventListener("change", () => {
    chooser.querySelectorAll(".choice").forEach((part, index) => {
      part.hidden = String(index) !== select.value;
    });
  });
}

function valueOf(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
}

function compared(one, other) {
  if (typeof one === "number" && typeof other === "number") {
    if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
    return one - other;
  }
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

for (const table of document.querySelectorAll(".sortable")) {
  const body = table.querySelector("tbody");
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((one) => one.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows];
    rows.sort((a, b) => (down ? -1 : 1) * compared(valueOf(a, column), valueOf(b, column)));
    body.append(...rows);
  }));
  const find = table.querySelector("input[type=search]");
  if (find) find.addEventListener("input", () => {
    const words = find.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(words);
  });
}
