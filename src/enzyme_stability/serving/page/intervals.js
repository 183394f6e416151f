// Intervals on one scale: a line from end to end with a mark at the prediction.

import { drawn } from "./dom.js";

const MOST_TICKS = 5;
const ROUND = 5; // degC, the ends are multiples of it
const STEPS = [5, 10, 20, 50, 100];

/** Scale in degC that holds all intervals, with round ends and round ticks. */
export function scaleOf(rows) {
  let [low, high] = [Infinity, -Infinity];
  for (const row of rows) {
    if (row.tm_celsius === null) continue;
    low = Math.min(low, row.tm_lower_celsius);
    high = Math.max(high, row.tm_upper_celsius);
  }
  if (low > high) return null;
  const first = Math.floor(low / ROUND) * ROUND;
  const last = Math.max(Math.ceil(high / ROUND) * ROUND, first + ROUND);
  const step = STEPS.find((one) => (last - first) / one < MOST_TICKS) ?? STEPS.at(-1);
  const ticks = [];
  for (let tick = Math.ceil(first / step) * step; tick <= last; tick += step) ticks.push(tick);
  return { first, last, ticks };
}

const place = (scale, celsius) => `${((100 * (celsius - scale.first)) / (scale.last - scale.first)).toFixed(2)}%`;

const grid = (scale) =>
  scale.ticks.map((tick) => drawn("line", { class: "grid", x1: place(scale, tick), x2: place(scale, tick), y1: -7, y2: 27 }));

/** The scale itself, for the head of the column. */
export function axis(scale) {
  const labels = scale.ticks.map((tick) => {
    const label = drawn("text", { class: "tick", x: place(scale, tick), y: 11 });
    label.textContent = tick;
    return label;
  });
  return drawn("svg", { class: "axis", height: 15, "aria-hidden": "true" }, ...labels);
}

/** One interval; the numbers stand beside it as text. */
export function bar(scale, row) {
  const [lower, tm, upper] = [row.tm_lower_celsius, row.tm_celsius, row.tm_upper_celsius].map((celsius) => place(scale, celsius));
  const mark = drawn(
    "g",
    { class: row.in_domain ? "mark" : "mark outside" },
    drawn("line", { x1: lower, x2: upper, y1: 9, y2: 9 }),
    drawn("circle", { cx: tm, cy: 9, r: 3.5 }),
  );
  return drawn("svg", { class: "bar", height: 18, "aria-hidden": "true" }, ...grid(scale), mark);
}
