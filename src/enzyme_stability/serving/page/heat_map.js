// Every substitution of a protein on a canvas: positions across, residues down, in ColorBrewer's RdBu around zero, which
// people with any colour vision can read. Only what is in sight is drawn, so that long proteins cost no more.

import { by, signed } from "./dom.js";

const GROUPS = [
  ["aliphatic", "AVILM"], ["aromatic", "FWY"], ["polar", "STNQ"], ["positive", "HKR"], ["negative", "DE"], ["special", "CGP"],
];
const ORDER = GROUPS.flatMap(([, members]) => [...members]);

// CSS pixels; a row of letters needs columns of at least LETTERS.
const [ROW, GROUP_GAP, STRIP, NUMBERS, LETTERS, NARROW_GUTTER, WIDE_GUTTER] = [17, 3, 34, 18, 9, 20, 84];
const FIRST_ROW = STRIP + 16;
const TOPS = GROUPS.flatMap(([, members], group) =>
  [...members].map((residue) => FIRST_ROW + ORDER.indexOf(residue) * ROW + group * GROUP_GAP),
);
const BOTTOM = TOPS.at(-1) + ROW + GROUP_GAP;
const HEIGHT = BOTTOM + NUMBERS;
const CLIPPED_SHARE = 0.02; // of the values may lie beyond the scale, so that an outlier does not bleach the rest

const within = (value, low, high) => Math.min(Math.max(value, low), high);

/** Whether an interval is all on one side of zero. */
export function verdict({ delta_tm_lower_celsius: lower, delta_tm_upper_celsius: upper }) {
  if (lower > 0) return { text: "more stable", tone: "up" };
  return upper < 0 ? { text: "less stable", tone: "down" } : { text: "undecided", tone: "open" };
}

/** The map in the section "scan"; `show` gives it a protein. */
export class HeatMap {
  #map = by("map");
  #strip = by("strip");
  #canvas = by("cells");
  #zoom = by("zoom");
  #length = 0;
  #cells = new Map(); // row of the answer by position and residue, as "12A"
  #wildType = [];
  #means = [];
  #limit = 1;
  #meanLimit = 1;
  #at = { place: 0, row: 0 };
  #cell = 16;
  #colours = {};
  #ramp = [];
  #frame = 0;

  constructor() {
    this.#map.addEventListener("keydown", (event) => this.#press(event));
    this.#map.addEventListener("focus", () => this.#moveTo(this.#at.place, this.#at.row));
    for (const event of ["blur", "scroll"]) this.#map.addEventListener(event, () => this.#draw());
    this.#canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.#canvas.addEventListener("click", (event) => this.#point(event, true));
    this.#zoom.addEventListener("input", () => this.#rescale(+this.#zoom.value));
    new ResizeObserver(() => this.#draw()).observe(this.#map);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#restyle());
  }

  /** Show a protein. @param {{length: number, rows: object[]}} scan As of /v1/scan, numbered from 1. */
  show({ length, rows }) {
    this.#length = length;
    this.#cells = new Map(rows.map((row) => [`${row.position}${row.substitution}`, row]));
    this.#wildType = Array(length).fill("X");
    const sums = Array.from({ length }, () => [0, 0]);
    for (const row of rows) {
      this.#wildType[row.position - 1] = row.wild_type;
      sums[row.position - 1][0] += row.delta_tm_celsius;
      sums[row.position - 1][1] += 1;
    }
    this.#means = sums.map(([sum, n]) => (n ? sum / n : 0));
    this.#meanLimit = this.#means.reduce((most, mean) => Math.max(most, Math.abs(mean)), 0.1);
    const sizes = rows.map((row) => Math.abs(row.delta_tm_celsius)).sort((a, b) => a - b);
    this.#limit = Math.max(Math.ceil(sizes[Math.floor((1 - CLIPPED_SHARE) * (sizes.length - 1))] ?? 1), 1);
    by("coldest").textContent = `−${this.#limit}`;
    by("hottest").textContent = `+${this.#limit} °C`;
    by("readout").textContent = "Point at a substitution, or move to it with the keys.";
    this.#at = { place: 0, row: 0 };
    this.#map.scrollLeft = 0;
    this.#cell = within(Math.floor((this.#map.clientWidth - this.#gutter()) / length), 14, 26);
    this.#zoom.value = this.#cell;
    this.#restyle();
  }

  /** Move to a substitution of the protein and put the focus there. */
  goTo({ position, substitution }) {
    this.#at = { place: position - 1, row: ORDER.indexOf(substitution) };
    this.#map.focus();
    this.#moveTo(this.#at.place, this.#at.row);
  }

  #describe() {
    const { place, row } = this.#at;
    const [residue, other] = [this.#wildType[place], ORDER[row]];
    const name = `${residue}${place + 1}${other}`;
    if (residue === other) return `${residue}${place + 1}, wild type`;
    const found = this.#cells.get(`${place + 1}${other}`);
    if (!found) return `${name}, unknown`;
    const interval = `${signed(found.delta_tm_lower_celsius)} to ${signed(found.delta_tm_upper_celsius)} °C`;
    const probability = `probability ${found.probability_stabilising.toFixed(2)}`;
    return [name, `ΔTm ${signed(found.delta_tm_celsius)} °C`, `interval ${interval}`, probability, verdict(found).text].join(", ");
  }

  #restyle() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    const names = ["paper", "quiet", "ink", "missing", "dot", "focus", "up", "down"];
    this.#colours = Object.fromEntries(names.map((name) => [name, read(name)]));
    const stops = read("ramp").split(",").map((hex) => [1, 3, 5].map((at) => parseInt(hex.trim().slice(at, at + 2), 16)));
    this.#ramp = Array.from({ length: 257 }, (_, k) => {
      const at = (k / 256) * (stops.length - 1);
      const from = Math.min(Math.floor(at), stops.length - 2);
      return `rgb(${stops[from].map((channel, c) => Math.round(channel + (at - from) * (stops[from + 1][c] - channel)))})`;
    });
    this.#draw();
  }

  #gutter = () => (this.#map.clientWidth > 640 ? WIDE_GUTTER : NARROW_GUTTER);
  #x = (place) => this.#gutter() + place * this.#cell - this.#map.scrollLeft;
  #colour = (celsius) => this.#ramp[Math.round(256 * within(celsius / 2 / this.#limit + 0.5, 0, 1))];

  #draw() {
    cancelAnimationFrame(this.#frame);
    if (this.#length) this.#frame = requestAnimationFrame(() => this.#drawNow());
  }

  #drawNow() {
    this.#strip.style.width = `${this.#gutter() + this.#length * this.#cell}px`;
    const pen = this.#pen(this.#map.clientWidth);
    const first = Math.max(Math.floor(this.#map.scrollLeft / this.#cell), 0);
    const end = Math.min(Math.ceil((this.#map.scrollLeft + this.#map.clientWidth - this.#gutter()) / this.#cell), this.#length);
    pen.textAlign = "center";
    for (let place = first; place < end; place++) this.#drawPosition(pen, place);
    pen.fillStyle = this.#colours.quiet;
    pen.fillRect(this.#gutter(), STRIP / 2, Math.min(this.#x(this.#length), this.#map.clientWidth) - this.#gutter(), 0.75);
    this.#drawGutter(pen);
    const { place, row } = this.#at;
    if (document.activeElement !== this.#map || place < first || place >= end) return;
    pen.strokeStyle = this.#colours.ink;
    pen.lineWidth = 2;
    pen.strokeRect(this.#x(place) - 1, TOPS[row] - 1, Math.max(this.#cell, 4) + 2, ROW + 2);
  }

  #pen(width) {
    const dense = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * dense);
    this.#canvas.height = Math.round(HEIGHT * dense);
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${HEIGHT}px`;
    const pen = this.#canvas.getContext("2d");
    pen.scale(dense, dense);
    pen.font = "11px ui-monospace, Menlo, Consolas, monospace";
    pen.textBaseline = "middle";
    return pen;
  }

  #drawPosition(pen, place) {
    const x = this.#x(place);
    const wide = this.#cell > 5 ? this.#cell - 0.5 : this.#cell + 0.3;
    const size = (this.#means[place] / this.#meanLimit) * (STRIP / 2);
    pen.fillStyle = size > 0 ? this.#colours.up : this.#colours.down;
    pen.fillRect(x, STRIP / 2 - Math.max(size, 0), wide, Math.abs(size));
    ORDER.forEach((residue, row) => {
      const found = this.#cells.get(`${place + 1}${residue}`);
      pen.fillStyle = found ? this.#colour(found.delta_tm_celsius) : this.#colours.missing;
      pen.fillRect(x, TOPS[row], wide, ROW - 0.5);
      if (residue === this.#wildType[place]) this.#drawDot(pen, x + this.#cell / 2, TOPS[row] + ROW / 2);
      else if (!found) this.#drawHatch(pen, x, TOPS[row], wide, ROW - 0.5);
    });
    pen.fillStyle = this.#colours.quiet;
    if (this.#cell >= LETTERS) pen.fillText(this.#wildType[place], x + this.#cell / 2, STRIP + 8);
    const number = place + 1;
    if (number % (this.#cell >= 5 ? 10 : 50) === 0) pen.fillText(number, x + this.#cell / 2, BOTTOM + NUMBERS / 2);
  }

  #drawDot(pen, x, y) {
    pen.fillStyle = this.#colours.dot;
    pen.beginPath();
    pen.arc(x, y, Math.min(this.#cell / 3, 2.5), 0, 2 * Math.PI);
    pen.fill();
  }

  #drawHatch(pen, x, y, wide, tall) {
    pen.strokeStyle = this.#colours.quiet;
    pen.lineWidth = 0.75;
    pen.beginPath();
    for (const shift of [0, 0.5]) {
      pen.moveTo(x, y + tall * (0.5 + shift));
      pen.lineTo(x + wide, y + tall * shift);
    }
    pen.stroke();
  }

  #drawGutter(pen) {
    const wide = this.#gutter();
    pen.fillStyle = this.#colours.paper;
    pen.fillRect(0, 0, wide, HEIGHT);
    pen.fillStyle = this.#colours.quiet;
    pen.textAlign = "right";
    ORDER.forEach((residue, row) => pen.fillText(residue, wide - 7, TOPS[row] + ROW / 2));
    if (wide === NARROW_GUTTER) return;
    pen.font = "11px system-ui, sans-serif";
    pen.fillText("mean", wide - 7, STRIP / 2);
    let row = 0;
    for (const [group, members] of GROUPS) {
      pen.fillText(group, wide - 22, (TOPS[row] + TOPS[row + members.length - 1] + ROW) / 2);
      row += members.length;
    }
  }

  #moveTo(place, row) {
    if (!this.#length) return;
    this.#at = { place: within(place, 0, this.#length - 1), row: within(row, 0, ORDER.length - 1) };
    const x = this.#x(this.#at.place);
    const room = this.#map.clientWidth - this.#gutter();
    if (x < this.#gutter() || x + this.#cell > this.#map.clientWidth) this.#map.scrollLeft = (this.#at.place + 0.5) * this.#cell - room / 2;
    by("readout").textContent = this.#describe();
    this.#draw();
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { place, row } = this.#at;
    const act = {
      ArrowLeft: () => this.#moveTo(place - 1, row),
      ArrowRight: () => this.#moveTo(place + 1, row),
      ArrowUp: () => this.#moveTo(place, row - 1),
      ArrowDown: () => this.#moveTo(place, row + 1),
      PageUp: () => this.#moveTo(place - 10, row),
      PageDown: () => this.#moveTo(place + 10, row),
      Home: () => this.#moveTo(0, row),
      End: () => this.#moveTo(this.#length - 1, row),
      "+": () => this.#rescale(this.#cell + 2),
      "-": () => this.#rescale(this.#cell - 2),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  #point(event, stays = false) {
    const box = this.#canvas.getBoundingClientRect();
    const x = event.clientX - box.left - this.#gutter();
    const place = Math.floor((x + this.#map.scrollLeft) / this.#cell);
    const row = TOPS.findIndex((top) => event.clientY - box.top >= top && event.clientY - box.top < top + ROW);
    if (x < 0 || place >= this.#length || row < 0) return;
    const before = this.#at;
    this.#at = { place, row };
    by("readout").textContent = this.#describe();
    if (stays || document.activeElement !== this.#map) this.#draw();
    else this.#at = before;
  }

  #rescale(wide) {
    const room = this.#map.clientWidth - this.#gutter();
    const middle = (this.#map.scrollLeft + room / 2) / this.#cell;
    this.#cell = within(wide, +this.#zoom.min, +this.#zoom.max);
    this.#zoom.value = this.#cell;
    this.#strip.style.width = `${this.#gutter() + this.#length * this.#cell}px`;
    this.#map.scrollLeft = middle * this.#cell - room / 2;
    this.#draw();
  }
}
