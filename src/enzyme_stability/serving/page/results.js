// The table of predictions: sorted, filtered, a page at a time, and kept as CSV.

import { PREDICTION_COLUMNS, csvHead, csvLines } from "./csv.js";
import { by, count, element, percent, save, several } from "./dom.js";
import { axis, bar, scaleOf } from "./intervals.js";

const PAGE_ROWS = 100;

const collator = new Intl.Collator("en", { numeric: true });
const tenth = (celsius) => celsius.toFixed(1);
const domain = (row) => (row.in_domain === null ? "" : row.in_domain ? "inside" : "outside");

// `key` is what a column is sorted by; `falling` ones show their highest first.
const COLUMNS = [
  { name: "#", key: (row) => row.number, className: "number" },
  { name: "Protein", key: (row) => row.id },
  { name: "Length", key: (row) => row.length, className: "number", falling: true },
  { name: "Tm (°C)", key: (row) => row.tm_celsius, className: "number", falling: true },
  { name: "Interval (°C)", key: (row) => row.tm_lower_celsius, className: "interval", falling: true },
  { name: "Domain", key: (row) => domain(row) || null },
  { name: "Status", key: (row) => row.status },
  { name: "Note", key: (row) => row.note || null },
];

/**
 * The table in the section "results".
 *
 * @param {(row: object) => void} scan Called with the row whose substitutions are asked for.
 */
export class Results {
  #rows = [];
  #found = [];
  #order = { column: COLUMNS[0], falling: false };
  #first = 0;
  #scale = null;
  #saveAll = null;
  #scan;

  constructor(scan) {
    this.#scan = scan;
    by("filter").addEventListener("input", () => this.#find());
    by("previous").addEventListener("click", () => this.#turn(-1));
    by("next").addEventListener("click", () => this.#turn(1));
    by("save").addEventListener("click", () => this.#save());
  }

  /**
   * Show an answer.
   *
   * @param {object} answer As of /v1/predict; each prediction may have the `sequence` it was made from.
   * @param {{total?: number, saveAll?: () => void}} job Where the answer may be only the beginning of a job's: how many
   *   rows there are, and what saves them all.
   */
  show(answer, { total, saveAll } = {}) {
    this.#rows = answer.predictions.map((row, k) => ({ ...row, coverage: answer.coverage, number: k + 1, searched: searched(row) }));
    this.#saveAll = total > this.#rows.length ? saveAll : null;
    this.#scale = scaleOf(this.#rows);
    this.#order = { column: COLUMNS[0], falling: false };
    by("filter").value = "";
    by("partial").hidden = !this.#saveAll;
    by("partial").textContent = `The table has the first ${count(this.#rows.length)} of ${count(total ?? 0)} rows; the CSV has all.`;
    this.#showFacts(answer);
    this.#showHead(answer.coverage);
    by("results").hidden = false;
    this.#find();
  }

  hide() {
    this.#rows = [];
    by("results").hidden = true;
    by("rows").replaceChildren();
  }

  #showFacts({ model, coverage }) {
    const failed = this.#rows.filter((row) => row.status === "error").length;
    const outside = this.#rows.filter((row) => row.in_domain === false).length;
    const facts = [
      ["Proteins", count(this.#rows.length)],
      ["Outside the domain", count(outside)],
      ["Without an answer", count(failed)],
      ["Interval", percent(coverage)],
      ["Model", model.name],
    ];
    by("facts").replaceChildren(
      ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
  }

  #showHead(coverage) {
    const heads = COLUMNS.map((column) => {
      const interval = column.className === "interval";
      const name = interval ? `${percent(coverage)} interval (°C)` : column.name;
      const button = element("button", { type: "button", textContent: name, onclick: () => this.#sort(column) });
      const head = element("th", { scope: "col", className: column.className ?? "" }, button);
      if (interval && this.#scale) head.append(axis(this.#scale));
      column.head = head;
      return head;
    });
    by("columns").replaceChildren(...heads, element("th", { scope: "col", textContent: "Variants" }));
  }

  #sort(column) {
    const falling = this.#order.column === column ? !this.#order.falling : Boolean(column.falling);
    this.#order = { column, falling };
    this.#find();
  }

  #find() {
    const wanted = by("filter").value.trim().toLowerCase();
    const { column, falling } = this.#order;
    const sign = falling ? -1 : 1;
    this.#found = this.#rows.filter((row) => row.searched.includes(wanted));
    this.#found.sort((a, b) => compare(column.key(a), column.key(b), sign) || a.number - b.number);
    for (const { head } of COLUMNS) head.removeAttribute("aria-sort");
    column.head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    by("filtered").textContent = wanted ? `${count(this.#found.length)} of ${several(this.#rows.length, "row")}` : "";
    this.#first = 0;
    this.#showRows();
  }

  #turn(pages) {
    this.#first += pages * PAGE_ROWS;
    this.#showRows();
    by("rows").closest(".scroll").scrollTop = 0;
  }

  #showRows() {
    const end = Math.min(this.#first + PAGE_ROWS, this.#found.length);
    by("rows").replaceChildren(...this.#found.slice(this.#first, end).map((row) => this.#tableRow(row)));
    by("pages").hidden = this.#found.length <= PAGE_ROWS;
    by("shown").textContent = `Rows ${count(this.#first + 1)} to ${count(end)} of ${count(this.#found.length)}`;
    by("previous").disabled = this.#first === 0;
    by("next").disabled = end === this.#found.length;
  }

  #tableRow(row) {
    const answered = row.tm_celsius !== null;
    const interval = element("td", { className: "interval" });
    if (answered) {
      const text = `${tenth(row.tm_lower_celsius)} to ${tenth(row.tm_upper_celsius)}`;
      interval.append(element("b", {}, text), bar(this.#scale, row));
    }
    const last = element("td");
    if (answered && row.sequence) {
      const button = element("button", { type: "button", textContent: "Scan", onclick: () => this.#scan(row) });
      button.setAttribute("aria-label", `Scan the substitutions of ${row.id}`);
      last.append(button);
    }
    return element(
      "tr",
      {},
      element("td", { className: "number quiet" }, count(row.number)),
      element("th", { scope: "row", title: row.id }, row.id),
      element("td", { className: "number" }, row.length === null ? "" : count(row.length)),
      element("td", { className: "number tm" }, answered ? tenth(row.tm_celsius) : ""),
      interval,
      element("td", { className: `domain ${domain(row)}` }, domain(row)),
      element("td", { className: `status ${row.status}` }, row.status),
      element("td", { className: "note" }, row.note),
      last,
    );
  }

  #save() {
    if (this.#saveAll) this.#saveAll();
    else save("predictions.csv", csvHead(PREDICTION_COLUMNS) + csvLines(PREDICTION_COLUMNS, this.#rows));
  }
}

const searched = (row) => [row.id, domain(row), row.status, row.note].join(" ").toLowerCase();

/** Missing values are last in either direction. */
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" ? a - b : collator.compare(a, b));
}
