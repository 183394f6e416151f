"use strict";
(() => {
  const { total, outside, axis, grid } = JSON.parse(document.getElementById("counts").textContent);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const words = { above: "▲ above", undecided: "◆ undecided", below: "▼ below" };
  const kinds = Object.keys(words);
  const rows = all("tbody tr");
  const filter = document.getElementById("filter");
  let resort = () => {};

  function ask(celsius) {
    const place = Math.min(Math.max(Math.round(celsius * 10) - grid.first, 0), grid.above.length - 1);
    const { above, below, above_outside, below_outside } = grid;
    const counts = {
      above: above[place],
      below: below[place],
      undecided: total - above[place] - below[place],
      above_outside: above_outside[place],
      below_outside: below_outside[place],
      undecided_outside: outside - above_outside[place] - below_outside[place],
    };
    all("[data-count]").forEach((e) => (e.textContent = counts[e.dataset.count].toLocaleString("en-US")));
    all("[data-threshold]").forEach((e) => (e.textContent = celsius));
    all("[data-lower]").forEach((e) => {
      const kind = +e.dataset.lower >= celsius ? "above" : +e.dataset.upper < celsius ? "below" : "undecided";
      if (e.classList.contains(kind)) return;
      e.classList.remove(...kinds);
      e.classList.add(kind);
      const cell = e.querySelector(".verdict");
      if (cell) cell.textContent = words[kind];
    });
    const percent = (100 * (celsius - axis[0])) / (axis[1] - axis[0]);
    document.body.classList.toggle("off-axis", percent < 0 || percent > 100);
    all("line.threshold").forEach((e) => ["x1", "x2"].forEach((x) => e.setAttribute(x, `${percent}%`)));
    all("text.threshold").forEach((e) => e.setAttribute("x", `${percent}%`));
    resort(".verdict");
    show();
  }

  function show() {
    const wanted = filter?.value.trim().toLowerCase() ?? "";
    let found = 0;
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ");
      row.hidden = !text.toLowerCase().includes(wanted);
      found += !row.hidden;
    }
    const count = document.getElementById("filtered");
    if (count) count.textContent = wanted && `${found.toLocaleString("en-US")} of ${rows.length.toLocaleString("en-US")} rows`;
  }

  // Numbers sort by value (an interval by its lower end), words by the alphabet; errors keep the end of the table.
  function sortBy(header, direction) {
    const body = document.querySelector("tbody");
    if (!body.rows.length) return;
    const column = header.cellIndex;
    const sign = direction === "ascending" ? 1 : -1;
    const numeric = header.classList.contains("number");
    const key = ({ cells: { [column]: cell }, classList }) => {
      if (cell.matches(".verdict")) return kinds.findIndex((kind) => classList.contains(kind));
      return numeric ? parseFloat(cell.textContent) : cell.textContent;
    };
    const compare = typeof key(body.rows[0]) === "number" ? (a, b) => a - b : new Intl.Collator("en", { numeric: true }).compare;
    const keyed = [...body.rows].map((row) => [key(row), row]);
    body.append(...keyed.sort((a, b) => sign * compare(a[0], b[0])).map(([, row]) => row));
    all("thead th").forEach((th) => th.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", direction);
    resort = (selector) => body.rows[0].cells[column].matches(selector) && sortBy(header, direction);
  }

  all("thead th").forEach((header) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => {
      const first = header.classList.contains("falling") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sortBy(header, header.getAttribute("aria-sort") === first ? other : first);
    });
    header.append(button);
  });

  all(".control").forEach((control) => (control.hidden = false));
  filter?.addEventListener("input", show);
  document.getElementById("threshold")?.addEventListener("input", (event) => {
    const celsius = Math.round(event.target.valueAsNumber * 10) / 10;
    if (Number.isFinite(celsius)) ask(celsius);
  });
})();
