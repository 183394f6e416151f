"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { wild_type: wildType, offset, limit, residues, groups, delta, below, above, probability } = data;
  const by = (id) => document.getElementById(id);
  const element = (kind, properties) => Object.assign(document.createElement(kind), properties);
  const [map, strip, cells, overview, tip, zoom, least] = ["map", "strip", "cells", "overview", "tip", "zoom", "least"].map(by);
  const length = wildType.length;
  const order = groups.flatMap(([, members]) => [...members]);
  const kinds = order.length;
  const columns = order.map((residue) => residues.indexOf(residue));

  // What is asked of one substitution; an index is place * 20 + column in the order of `residues`.
  const index = (place, row) => place * kinds + columns[row];
  const placeOf = (k) => Math.floor(k / kinds);
  const rowOf = (k) => order.indexOf(residues[k % kinds]);
  const name = (k) => `${wildType[placeOf(k)]}${placeOf(k) + offset + 1}${residues[k % kinds]}`;
  const lower = (k) => delta[k] - below[k];
  const upper = (k) => delta[k] + above[k];
  const signed = (hundredths) => `${hundredths < 0 ? "−" : "+"}${Math.abs(hundredths / 100).toFixed(2)}`;
  const interval = (k) => `${signed(lower(k))} to ${signed(upper(k))}`;
  const verdict = (k) => (lower(k) > 0 ? "more stable" : upper(k) < 0 ? "less stable" : "undecided");
  const tones = { "more stable": "up", undecided: "open", "less stable": "down" };
  const passes = (k) => delta[k] !== null && probability[k] >= wanted;
  const share = (k) => (probability[k] / 10_000).toFixed(2);
  const count = (n) => n.toLocaleString("en-US");
  function describe(k) {
    const residue = wildType[placeOf(k)];
    if (residue === residues[k % kinds]) return [`${residue}${placeOf(k) + offset + 1}`, "wild type"];
    if (delta[k] === null) return [name(k), "unknown"];
    const numbers = [`ΔTm ${signed(delta[k])} °C`, `${data.coverage} interval ${interval(k)} °C`];
    return [name(k), ...numbers, `probability ${share(k)}`, verdict(k), ...(chosen.has(k) ? ["selected"] : [])];
  }

  const means = Array.from({ length }, (_, place) => {
    const known = delta.slice(place * kinds, (place + 1) * kinds).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length / 100 : null;
  });
  const meanLimit = means.reduce((most, mean) => Math.max(most, Math.abs(mean ?? 0)), 0.1);

  const chosen = new Set();
  let focus = index(0, 0);
  let wanted = 0; // the least probability, in ten-thousandths as the data
  let cell = 16;
  let colours = {};
  let ramp = [];

  // Sizes in CSS pixels; a row of letters needs columns of at least `LETTERS`.
  const [ROW, GROUP_GAP, STRIP, NUMBERS, LETTERS, GUTTER_LETTER] = [17, 3, 34, 18, 9, 20];
  const gutter = () => (map.clientWidth > 640 ? 84 : GUTTER_LETTER);
  const firstRow = STRIP + 16;
  const tops = groups.flatMap(([, members], group) =>
    [...members].map((residue) => firstRow + order.indexOf(residue) * ROW + group * GROUP_GAP),
  );
  const bottom = tops[kinds - 1] + ROW + GROUP_GAP;
  const height = bottom + NUMBERS;

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (variable) => style.getPropertyValue(`--${variable}`).trim();
    colours = Object.fromEntries(["paper", "quiet", "missing", "dot", "pick", "focus", "up", "down"].map((v) => [v, read(v)]));
    const stops = read("ramp").split(",").map((hex) => [1, 3, 5].map((at) => parseInt(hex.trim().slice(at, at + 2), 16)));
    ramp = Array.from({ length: 257 }, (_, k) => {
      const at = (k / 256) * (stops.length - 1);
      const from = Math.min(Math.floor(at), stops.length - 2);
      return `rgb(${stops[from].map((channel, c) => Math.round(channel + (at - from) * (stops[from + 1][c] - channel)))})`;
    });
  }
  const colour = (hundredths) => ramp[Math.round(256 * Math.min(Math.max(hundredths / 200 / limit + 0.5, 0), 1))];

  function sized(canvas, width, tall) {
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(tall * dense);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${tall}px`;
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    pen.font = `${tall > 60 ? 11 : 10}px ui-monospace, Menlo, Consolas, monospace`;
    pen.textBaseline = "middle";
    return pen;
  }

  const xOf = (place) => gutter() + place * cell - map.scrollLeft;
  const lastVisible = () => Math.min(Math.ceil((map.scrollLeft + map.clientWidth - gutter()) / cell), length);
  const visible = () => [Math.max(Math.floor(map.scrollLeft / cell), 0), lastVisible()];

  function drawCells() {
    const pen = sized(cells, map.clientWidth, height);
    const [first, end] = visible();
    const inner = cell > 5 ? cell - 0.5 : cell + 0.3;
    pen.textAlign = "center";
    for (let place = first; place < end; place++) {
      const x = xOf(place);
      bar(pen, x, inner, means[place] ?? 0, STRIP);
      for (let row = 0; row < kinds; row++) {
        const k = index(place, row);
        pen.fillStyle = delta[k] === null ? colours.missing : colour(delta[k]);
        pen.globalAlpha = delta[k] === null || passes(k) ? 1 : 0.1;
        pen.fillRect(x, tops[row], inner, ROW - 0.5);
        pen.globalAlpha = 1;
        if (delta[k] === null && order[row] === wildType[place]) dot(pen, x + cell / 2, tops[row] + ROW / 2);
        else if (delta[k] === null) hatch(pen, x, tops[row], inner, ROW - 0.5);
        if (chosen.has(k)) outline(pen, x, row, colours.pick, 3);
      }
      pen.fillStyle = colours.quiet;
      if (cell >= LETTERS) pen.fillText(wildType[place], x + cell / 2, STRIP + 8);
      const number = place + offset + 1;
      if (number % (cell >= 5 ? 10 : 50) === 0) pen.fillText(number, x + cell / 2, bottom + NUMBERS / 2);
    }
    pen.fillStyle = colours.quiet;
    pen.fillRect(gutter(), STRIP / 2, Math.min(xOf(length), map.clientWidth) - gutter(), 0.75);
    drawGutter(pen);
    const at = placeOf(focus);
    if (document.activeElement === map && at >= first && at < end) outline(pen, xOf(at), rowOf(focus), colours.focus, 2, 1);
  }

  function bar(pen, x, wide, mean, tall) {
    const size = (mean / meanLimit) * (tall / 2);
    pen.fillStyle = size > 0 ? colours.up : colours.down;
    pen.fillRect(x, tall / 2 - Math.max(size, 0), wide, Math.abs(size));
  }

  function dot(pen, x, y) {
    pen.fillStyle = colours.dot;
    pen.beginPath();
    pen.arc(x, y, Math.min(cell / 3, 2.5), 0, 2 * Math.PI);
    pen.fill();
  }

  function hatch(pen, x, y, wide, tall) {
    pen.strokeStyle = colours.quiet;
    pen.lineWidth = 0.75;
    pen.beginPath();
    for (const shift of [0, 0.5]) {
      pen.moveTo(x, y + tall * (0.5 + shift));
      pen.lineTo(x + wide, y + tall * shift);
    }
    pen.stroke();
  }

  function outline(pen, x, row, style, thick, outside = 0) {
    pen.strokeStyle = style;
    pen.lineWidth = thick;
    pen.strokeRect(x + 1 - outside, tops[row] + 1 - outside, Math.max(cell, 4) - 2 + 2 * outside, ROW - 2 + 2 * outside);
  }

  function drawGutter(pen) {
    pen.fillStyle = colours.paper;
    pen.fillRect(0, 0, gutter(), height);
    pen.fillStyle = colours.quiet;
    pen.textAlign = "right";
    order.forEach((residue, row) => pen.fillText(residue, gutter() - 7, tops[row] + ROW / 2));
    if (gutter() === GUTTER_LETTER) return;
    pen.font = "11px system-ui, sans-serif";
    pen.fillText("mean", gutter() - 7, STRIP / 2);
    let row = 0;
    for (const [group, members] of groups) {
      pen.fillText(group, gutter() - 22, (tops[row] + tops[row + members.length - 1] + ROW) / 2);
      row += members.length;
    }
  }

  // Each pixel stands for all positions that fall on it: their highest mean above the line, the lowest below it.
  function drawOverview() {
    const width = map.clientWidth;
    const pen = sized(overview, width, 40);
    const step = width / length;
    for (let x = 0; x < width; x++) {
      const [from, to] = [Math.floor(x / step), Math.max(Math.ceil((x + 1) / step), Math.floor(x / step) + 1)];
      const here = means.slice(from, to).filter((mean) => mean !== null);
      const [most, fewest] = [Math.max(0, ...here), Math.min(0, ...here)];
      for (const mean of [most, fewest]) bar(pen, x, 1, mean, 40);
    }
    const [first, end] = visible();
    pen.strokeStyle = colours.focus;
    pen.lineWidth = 2;
    pen.strokeRect(first * step + 1, 1, Math.max((end - first) * step - 2, 4), 38);
  }

  let frame = 0;
  function draw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(drawNow);
  }
  function drawNow() {
    strip.style.width = `${gutter() + length * cell}px`;
    overview.hidden = gutter() + length * cell <= map.clientWidth;
    drawCells();
    if (!overview.hidden) drawOverview();
  }

  function show(place) {
    const room = map.clientWidth - gutter();
    if (xOf(place) < gutter() || xOf(place) + cell > map.clientWidth) map.scrollLeft = (place + 0.5) * cell - room / 2;
    draw();
  }

  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  function moveTo(place, row) {
    focus = index(within(place, 0, length - 1), within(row, 0, kinds - 1));
    by("said").textContent = describe(focus).join(", ");
    show(placeOf(focus));
  }

  function rescale(wide) {
    const middle = (map.scrollLeft + (map.clientWidth - gutter()) / 2) / cell;
    cell = within(wide, +zoom.min, +zoom.max);
    zoom.value = cell;
    strip.style.width = `${gutter() + length * cell}px`;
    map.scrollLeft = middle * cell - (map.clientWidth - gutter()) / 2;
    draw();
  }

  function at(event) {
    const box = cells.getBoundingClientRect();
    const x = event.clientX - box.left - gutter();
    const place = Math.floor((x + map.scrollLeft) / cell);
    const row = tops.findIndex((top) => event.clientY - box.top >= top && event.clientY - box.top < top + ROW);
    return x < 0 || place >= length || row < 0 ? null : index(place, row);
  }

  function toggle(k) {
    if (delta[k] === null) return;
    if (!chosen.delete(k)) chosen.add(k);
    showChosen();
    by("said").textContent = describe(k).join(", ") + (chosen.has(k) ? "" : ", not selected");
  }

  function showChosen() {
    const picked = [...chosen].sort((a, b) => a - b);
    by("chosen").replaceChildren(
      ...picked.map((k) => {
        const button = element("button", { type: "button", textContent: `${name(k)} ${signed(delta[k])} °C`, onclick: () => toggle(k) });
        button.ariaLabel = `Remove ${button.textContent}`;
        const item = element("li", {});
        item.append(button);
        return item;
      }),
    );
    by("none").hidden = picked.length > 0;
    by("download").disabled = by("clear").disabled = !picked.length;
    const sum = picked.reduce((total, k) => total + delta[k], 0);
    let joined = `As one variant: ${picked.map(name).join(":")}; ΔTm ${signed(sum)} °C if the effects add up.`;
    if (new Set(picked.map(placeOf)).size < picked.length) joined = "Two of them are at one position, so they cannot be in one variant.";
    by("joined").textContent = picked.length < 2 ? "" : joined;
    document.querySelectorAll("tbody input").forEach((box) => (box.checked = chosen.has(+box.dataset.k)));
    draw();
  }

  function csv() {
    const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
    const names = "id,variant,position,wild_type,substitution,delta_tm_celsius,lower_celsius,upper_celsius,probability,status,sign";
    const rows = [...chosen].sort((a, b) => a - b).map((k) => [
      quoted(data.id), name(k), placeOf(k) + offset + 1, wildType[placeOf(k)], residues[k % kinds],
      ...[delta[k], lower(k), upper(k)].map((hundredths) => (hundredths / 100).toFixed(2)),
      share(k), verdict(k), quoted(data.sign),
    ]);
    return [names, ...rows.map((row) => row.join(","))].join("\n") + "\n";
  }

  const keys = { place: (k) => k, delta: (k) => delta[k], lower, probability: (k) => probability[k] };
  let sorted = { key: "delta", rising: false };
  function showTable() {
    const key = keys[sorted.key];
    const passed = [];
    for (let k = 0; k < delta.length; k++) if (passes(k)) passed.push(k);
    passed.sort((a, b) => (sorted.rising ? key(a) - key(b) : key(b) - key(a)) || a - b);
    const shown = passed.slice(0, data.table_rows);
    document.querySelector("tbody").replaceChildren(...shown.map(tableRow));
    by("shown").textContent = `The first ${count(shown.length)} in this order, of ${count(passed.length)} substitutions.`;
    by("passed").textContent = wanted > 0 ? `${count(passed.length)} substitutions` : "";
  }

  function tableRow(k) {
    const row = element("tr", {});
    const put = (kind, className, content) => {
      const made = element(kind, { className });
      made.append(content);
      row.append(made);
      return made;
    };
    const box = element("input", { type: "checkbox", checked: chosen.has(k), onchange: () => toggle(k), ariaLabel: `Select ${name(k)}` });
    box.dataset.k = k;
    put("td", "pick", box);
    const locate = () => moveTo(placeOf(k), rowOf(k)) ?? map.focus();
    const title = "Show in the heat map";
    put("th", "", element("button", { type: "button", textContent: name(k), title, onclick: locate })).scope = "row";
    put("td", "number", signed(delta[k]));
    put("td", "number", interval(k));
    put("td", "number", share(k));
    put("td", `status ${tones[verdict(k)]}`, verdict(k));
    return row;
  }

  document.querySelectorAll("thead th[data-key]").forEach((header) => {
    const button = element("button", { type: "button" });
    button.append(...header.childNodes);
    button.addEventListener("click", () => {
      const { key } = header.dataset;
      sorted = { key, rising: key === sorted.key ? !sorted.rising : !header.classList.contains("falling") };
      document.querySelectorAll("thead th").forEach((th) => th.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", sorted.rising ? "ascending" : "descending");
      showTable();
    });
    header.append(button);
  });

  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [place, row] = [placeOf(focus), rowOf(focus)];
    const act = {
      ArrowLeft: () => moveTo(place - 1, row),
      ArrowRight: () => moveTo(place + 1, row),
      ArrowUp: () => moveTo(place, row - 1),
      ArrowDown: () => moveTo(place, row + 1),
      PageUp: () => moveTo(place - 10, row),
      PageDown: () => moveTo(place + 10, row),
      Home: () => moveTo(0, row),
      End: () => moveTo(length - 1, row),
      Enter: () => toggle(focus),
      " ": () => toggle(focus),
      "+": () => rescale(cell + 2),
      "-": () => rescale(cell - 2),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  map.addEventListener("focus", () => moveTo(placeOf(focus), rowOf(focus)));
  map.addEventListener("blur", draw);
  map.addEventListener("scroll", draw);
  cells.addEventListener("click", (event) => {
    focus = at(event) ?? focus;
    if (at(event) !== null) toggle(focus);
  });
  cells.addEventListener("pointermove", (event) => {
    const k = at(event);
    tip.hidden = k === null;
    if (k === null) return;
    tip.textContent = describe(k).join("\n");
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8)}px`;
  });
  cells.addEventListener("pointerleave", () => (tip.hidden = true));

  const jump = (event) => {
    const share = (event.clientX - overview.getBoundingClientRect().left) / overview.clientWidth;
    map.scrollLeft = share * length * cell - (map.clientWidth - gutter()) / 2;
  };
  overview.addEventListener("pointerdown", jump);
  overview.addEventListener("pointermove", (event) => event.buttons && jump(event));
  zoom.addEventListener("input", () => rescale(+zoom.value));
  least.addEventListener("input", () => {
    wanted = Math.round(10_000 * (least.valueAsNumber || 0));
    showTable();
    draw();
  });
  by("position").addEventListener("change", (event) => {
    if (Number.isFinite(event.target.valueAsNumber)) moveTo(Math.round(event.target.valueAsNumber) - offset - 1, rowOf(focus));
  });
  by("clear").addEventListener("click", () => showChosen(chosen.clear()));
  by("download").addEventListener("click", () => {
    const href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    const link = element("a", { href, download: "selected_substitutions.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  });

  by("explorer").hidden = by("picked").hidden = false;
  cell = within(Math.floor((map.clientWidth - gutter()) / length), 14, 26);
  zoom.value = cell;
  const restyle = () => drawNow(readColours());
  for (const query of ["(prefers-color-scheme: dark)", "print"]) window.matchMedia(query).addEventListener("change", restyle);
  window.addEventListener("resize", draw);
  restyle();
  showChosen();
  showTable();
})();
