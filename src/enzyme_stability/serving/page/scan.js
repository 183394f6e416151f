// The section on the substitutions of one protein: the map, and the best of them as a table.

import { SCAN_COLUMNS, csvHead, csvLines } from "./csv.js";
import { by, element, percent, save, several, signed } from "./dom.js";
import { HeatMap, verdict } from "./heat_map.js";
import { ask } from "./service.js";

const BEST = 20;

/** The section "scan". */
export class ScanSection {
  #map = new HeatMap();
  #scan = null;

  constructor() {
    by("save-scan").addEventListener("click", () => {
      save("substitutions.csv", csvHead(SCAN_COLUMNS) + csvLines(SCAN_COLUMNS, this.#scan.rows));
    });
  }

  /** Ask for all substitutions of a protein and show them. */
  async run({ id, sequence, coverage }, how) {
    this.#scan = await ask("v1/scan", { json: { sequence, coverage, size: BEST }, ...how });
    const facts = [several(this.#scan.length, "residue"), several(this.#scan.rows.length, "substitution"), ...(this.#scan.notes ?? [])];
    by("scanned").textContent = `${id}: ${facts.join(", ")}`;
    by("reach").textContent = `${percent(coverage)} interval (°C)`;
    by("sign").textContent = this.#scan.sign;
    by("scan").hidden = false;
    this.#map.show(this.#scan);
    by("shortlist").replaceChildren(...this.#scan.shortlist.map((one) => this.#tableRow(one)));
    by("best").textContent = `The best ${several(this.#scan.shortlist.length, "substitution")}, spread out`;
    by("substitutions").focus();
  }

  hide() {
    by("scan").hidden = true;
  }

  #tableRow(one) {
    const { text, tone } = verdict(one);
    const show = element("button", { type: "button", textContent: one.variant, title: "Show in the heat map" });
    show.addEventListener("click", () => this.#map.goTo(one));
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, show),
      element("td", { className: "number" }, signed(one.delta_tm_celsius)),
      element("td", { className: "number" }, `${signed(one.delta_tm_lower_celsius)} to ${signed(one.delta_tm_upper_celsius)}`),
      element("td", { className: "number" }, one.probability_stabilising.toFixed(2)),
      element("td", { className: `verdict ${tone}` }, text),
    );
  }
}
