// Tables to keep: CSV as the command line writes it, harmless in a spreadsheet.

export const PREDICTION_COLUMNS = [
  "id", "length", "tm_celsius", "tm_lower_celsius", "tm_upper_celsius", "in_domain", "status", "note",
];
export const SCAN_COLUMNS = [
  "variant", "position", "wild_type", "substitution",
  "delta_tm_celsius", "delta_tm_lower_celsius", "delta_tm_upper_celsius", "probability_stabilising", "status",
];

// A spreadsheet would run a text that begins like a formula; names of proteins come from strangers.
const FORMULA = /^[\s\u0000]*[=+\-@]|^[\t\r\n]/;

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The first line of a table. */
export const csvHead = (columns) => `${columns.join(",")}\n`;

/** The lines of some rows; missing values are empty. */
export const csvLines = (columns, rows) =>
  rows.map((row) => `${columns.map((column) => cell(row[column])).join(",")}\n`).join("");
