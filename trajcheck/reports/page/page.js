(() => {
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);

  const meta = JSON.parse(by("series-meta").textContent);
  const explorer = by("explorer");
  let arrays = null;
  let drawing = Promise.resolve();
  if (!explorer) return;
  onTheme(() => draw());

  // The packed columns: deflated float64, their bytes in order of significance.
  async function inflate(id) {
    const text = by(id).textContent;
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
  }
  async function unpack() {
    const bytes = new Uint8Array(await (await inflate("series-data")).arrayBuffer());
    let start = 0;
    return meta.lengths.map((n) => {
      const mixed = new Uint8Array(8 * n);
      for (let plane = 0; plane < 8; plane++) for (let i = 0; i < n; i++) mixed[8 * i + plane] = bytes[start + plane * n + i];
      start += 8 * n;
      const view = new DataView(mixed.buffer);
      return Float64Array.from({ length: n }, (_, i) => view.getFloat64(8 * i, true));
    });
  }
  async function loadLibrary() {
    const script = document.createElement("script");
    script.textContent = await (await inflate("library")).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("the chart library did not start");
  }

  // What can be chosen.
  const quantity = by("quantity"), along = by("along"), from = by("from"), to = by("to");
  for (const table of [...new Set(meta.quantities.map((q) => q.table))]) {
    const group = document.createElement("optgroup");
    group.label = `${table}.csv`;
    meta.quantities.forEach((q, i) => {
      if (q.table !== table) return;
      const option = document.createElement("option");
      option.value = i;
      option.textContent = `${q.column}: ${q.words}`;
      group.append(option);
    });
    quantity.append(group);
  }
  const lines = meta.quantities.flatMap((q) => q.lines);
  const refs = [...new Set(lines.map((l) => l.ref))].filter((ref) => ref);
  const samples = [...new Set(lines.map((l) => l.sample))].filter((sample) => sample);
  const colour = (ref) => (ref ? meta.colours[refs.indexOf(ref) % meta.colours.length] : null) || (isDark() ? "#e0e0e0" : "#000000");
  function boxes(field, names, swatch) {
    field.hidden = names.length < 2;
    return names.map((name) => {
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.value = name;
      label.append(box);
      label.append(swatch(name), name);
      field.append(label);
      return box;
    });
  }
  // The chart's legend: a line in the colour of a reference, or the dashes of a sample.
  function lineOf(ink, dash) {
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg"), stroke = document.createElementNS(mark.namespaceURI, "line");
    const set = (element, values) => { for (const key in values) element.setAttribute(key, values[key]); };
    set(mark, { class: "swatch", viewBox: "0 0 26 4", "aria-hidden": "true" });
    set(stroke, { x1: 0, y1: 2, x2: 26, y2: 2, "stroke-width": 3, "stroke-dasharray": { dash: "7 4", dashdot: "8 3 2 3", dot: "2 3" }[dash] || "none" });
    stroke.style.stroke = ink || "currentColor";
    mark.append(stroke);
    return mark;
  }
  by("references").querySelector("legend").textContent = meta.otherwise === "run b" ? "Run b" : "Reference";
  along.options[0].textContent = meta.step;
  along.value = meta.along;
  const refBoxes = boxes(by("references"), refs, (ref) => lineOf(meta.colours[refs.indexOf(ref) % meta.colours.length], "solid"));
  const sampleBoxes = boxes(by("samples"), samples, (sample) => lineOf(null, meta.dashes[sample]));
  const chosen = (all) => new Set(all.filter((box) => box.checked).map((box) => box.value));

  // Plotly reads a little HTML in names.
  const plain = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (name) => (name.length > 36 ? "…" + name.slice(-35) : name);

  function shown() {
    const q = meta.quantities[quantity.value], inRefs = chosen(refBoxes), inSamples = chosen(sampleBoxes);
    return q.lines.filter((l) => (!l.ref || inRefs.has(l.ref)) && (!l.sample || inSamples.has(l.sample))).map((l) => ({
      name: [l.ref, samples.length > 1 ? l.sample : ""].filter((word) => word).join(", ") || q.column,
      x: arrays[along.value === "tau" && l.tau !== undefined ? l.tau : l.step],
      y: arrays[l.y],
      error: l.error === undefined ? null : arrays[l.error],
      colour: colour(l.ref),
      dash: meta.dashes[l.sample] || "solid",
    }));
  }

  // A value without a neighbour is a point; nothing is drawn across a gap.
  const FEW = 60;
  function traces(all) {
    const found = [];
    for (const line of all) {
      const here = (i) => i >= 0 && i < line.y.length && Number.isFinite(line.y[i]);
      let count = 0;
      const single = [];
      for (let i = 0; i < line.y.length; i++) if (here(i)) { count++; if (!here(i - 1) && !here(i + 1)) single.push(i); }
      const every = by("marks").checked || count <= FEW;
      const base = { type: "scatter", x: line.x, connectgaps: false, name: plain(short(line.name)) };
      found.push({ ...base, y: line.y, mode: every ? "lines+markers" : "lines", line: { color: line.colour, dash: line.dash, width: 1.5 }, marker: { size: 5, color: line.colour } });
      if (!every && single.length) {
        found.push({ ...base, x: single.map((i) => line.x[i]), y: single.map((i) => line.y[i]), mode: "markers", marker: { size: 4, color: line.colour }, hoverinfo: "skip" });
      }
      if (line.error && by("errors").checked) {
        for (const sign of [-1, 1]) {
          const y = line.y.map((value, i) => value + sign * line.error[i]);
          found.push({ ...base, y, mode: count <= FEW ? "markers" : "lines", line: { color: line.colour, dash: "solid", width: 0.6 }, marker: { size: 3, symbol: "line-ew-open", color: line.colour }, opacity: 0.6, hoverinfo: "skip" });
        }
      }
    }
    return found;
  }

  function range() {
    const ends = [from.value, to.value].map((value) => (value === "" ? null : Number(value)));
    return ends[0] !== null && ends[1] !== null && ends[0] < ends[1] ? ends : null;
  }
  const inside = (x) => { const ends = range(); return !ends || (x >= ends[0] && x <= ends[1]); };
  const words = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "–");

  function say(all) {
    const q = meta.quantities[quantity.value], log = by("log").checked;
    let hidden = 0, missing = 0;
    const parts = all.map((line) => {
      let low = Infinity, high = -Infinity, count = 0;
      for (let i = 0; i < line.y.length; i++) {
        if (!inside(line.x[i])) continue;
        const y = line.y[i];
        if (!Number.isFinite(y)) { missing++; continue; }
        count++;
        if (y <= 0) hidden++;
        low = Math.min(low, y);
        high = Math.max(high, y);
      }
      return count ? `${line.name}: ${count} values from ${words(low)} to ${words(high)}` : `${line.name}: no value`;
    });
    const notes = [];
    if (missing) notes.push(`Empty cells, drawn as gaps: ${missing}`);
    if (log && hidden) notes.push(`Values at or below 0, not on the logarithmic scale: ${hidden}`);
    if (meta.thin > 1) notes.push(`One row in ${meta.thin} of the CSV is drawn`);
    by("status").textContent = `${q.column} along ${along.value}. ${parts.join("; ") || "Nothing is chosen"}.${notes.map((note) => ` ${note}.`).join("")}`;
    by("chart").setAttribute("aria-label", `Line chart of ${q.column}, ${q.words}`);
  }

  const ROWS = 25;
  function tabulate(all) {
    const cells = by("cells");
    cells.textContent = "";
    if (!by("values").open || !all.length) return;
    const places = all.map((line) => new Map([...line.x].map((x, i) => [x, i])));
    const xs = [...new Set(all.flatMap((line) => [...line.x]))].filter(inside).sort((a, b) => a - b);
    const count = Math.min(ROWS, xs.length);
    const rows = Array.from({ length: count }, (_, i) => xs[Math.round((i * (xs.length - 1)) / Math.max(1, count - 1))]);
    const table = document.createElement("table"), caption = table.createCaption();
    caption.textContent = `${count} of ${xs.length} rows, evenly chosen; all are in the CSV files`;
    const head = table.createTHead().insertRow();
    for (const name of [along.value, ...all.map((line) => line.name)]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const x of rows) {
      const row = body.insertRow(), first = document.createElement("th");
      first.scope = "row";
      first.textContent = String(x);
      row.append(first);
      all.forEach((line, k) => {
        const cell = row.insertCell(), i = places[k].get(x);
        cell.className = "number";
        cell.textContent = i === undefined ? "–" : words(line.y[i]) + (line.error && Number.isFinite(line.error[i]) ? ` ± ${words(line.error[i])}` : "");
      });
    }
    cells.append(table);
  }

  function layout() {
    const style = getComputedStyle(root), ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    const page = style.getPropertyValue("--page").trim(), q = meta.quantities[quantity.value], ends = range();
    const axis = { color: ink, gridcolor: line, linecolor: line, zerolinecolor: ink, zerolinewidth: 1, automargin: true };
    return {
      paper_bgcolor: page, plot_bgcolor: page, font: { color: ink, family: "system-ui, sans-serif", size: 13 },
      margin: { l: 60, r: 15, t: 32, b: 62 }, hovermode: "x unified", hoverlabel: { bgcolor: page, font: { color: ink } },
      showlegend: false, dragmode: "zoom", uirevision: `${quantity.value} ${along.value}`,
      xaxis: { ...axis, title: { text: along.value === "tau" ? "τ" : plain(meta.step), standoff: 6 }, ...(ends ? { range: ends } : { autorange: true }) },
      yaxis: { ...axis, title: { text: plain(q.column) }, type: by("log").checked ? "log" : "linear", autorange: true, exponentformat: "power", hoverformat: ".4~g" },
    };
  }

  function draw() {
    if (!arrays || !window.Plotly) return;
    const all = shown();
    drawing = drawing.then(() => Plotly.react("chart", traces(all), layout(), { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] }));
    say(all);
    tabulate(all);
  }

  by("controls").addEventListener("change", (event) => {
    if (event.target === along) from.value = to.value = "";
    draw();
  });
  by("controls").addEventListener("submit", (event) => event.preventDefault());
  by("all").addEventListener("click", () => { from.value = to.value = ""; draw(); });
  by("values").addEventListener("toggle", () => { if (arrays) tabulate(shown()); });

  async function begin() {
    explorer.hidden = false;
    try {
      arrays = await unpack();
      await loadLibrary();
    } catch (error) {
      by("status").textContent = `The interactive chart cannot be shown in this browser (${error.message}); the figures below can.`;
      by("controls").hidden = by("chart").hidden = by("values").hidden = true;
      return;
    }
    draw();
    await drawing;
    by("chart").on("plotly_relayout", (change) => {
      if ("xaxis.range[0]" in change) {
        from.value = Number(change["xaxis.range[0]"].toPrecision(6));
        to.value = Number(change["xaxis.range[1]"].toPrecision(6));
      } else if (change["xaxis.autorange"]) from.value = to.value = "";
      else return;
      const all = shown();
      say(all);
      tabulate(all);
    });
    root.dataset.ready = "yes";
  }
  setTimeout(begin, 0);
})();
