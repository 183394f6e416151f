// Reads what was pasted or chosen, as far as this page has to know it: how many proteins there are, and the sequence of
// each for a scan. Files themselves are read by the service, whose word on them counts.

/** Names of a column with sequences, in the order of preference, as the service goes by. */
const SEQUENCE_COLUMNS = ["sequence", "seq", "protein_sequence", "aa_sequence", "aa_seq", "amino_acid_sequence", "mutated_sequence"];

const MOST_BYTES = 128 << 20; // of text that is held in memory
const UNKNOWN = { kind: "unknown", total: NaN, records: [] };
const TOO_LARGE = { ...UNKNOWN, total: Infinity };

/**
 * What was given.
 *
 * @typedef {object} Given
 * @property {"fasta" | "bare" | "table" | "unknown"} kind
 * @property {number} total Proteins; NaN where this page cannot tell.
 * @property {{id: string, sequence: string}[]} records In their order; empty where this page cannot tell.
 */

/** @returns {Given} */
export function readText(text) {
  const start = text.replace(/^[\ufeff\s]+/, "");
  if (start.startsWith(">")) {
    const records = readFasta(start);
    return { kind: "fasta", total: records.length, records };
  }
  const lines = start.trimEnd().split(/\r\n?|\n/);
  if (!/[,;\t]/.test(lines[0]) && !SEQUENCE_COLUMNS.includes(columnName(lines[0]))) {
    if (lines.length > 1) return UNKNOWN;
    return { kind: "bare", total: 1, records: [{ id: "sequence_1", sequence: lines[0] }] };
  }
  const records = readTable(start);
  return { kind: "table", total: records.length, records };
}

/** The same of a file, gzip-compressed or not. @returns {Promise<Given>} */
export async function readFile(file) {
  const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  const compressed = head[0] === 0x1f && head[1] === 0x8b;
  if (file.size > MOST_BYTES) return TOO_LARGE;
  const stream = compressed ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  try {
    for (const reader = stream.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      if (bytes > MOST_BYTES) {
        await reader.cancel();
        return TOO_LARGE;
      }
      text += decoder.decode(value, { stream: true });
    }
  } catch {
    return UNKNOWN; // damaged; the service says how
  }
  return text.includes("\0") ? UNKNOWN : readText(text);
}

function readFasta(text) {
  const records = [];
  let parts = [];
  const close = () => records.length && (records.at(-1).sequence = parts.join(""));
  for (const line of text.split(/\r\n?|\n/)) {
    const mark = line.trimStart();
    if (mark.startsWith(">")) {
      close();
      parts = [];
      records.push({ id: fastaName(mark) || `record_${records.length + 1}`, sequence: "" });
    } else if (!mark.startsWith(";")) parts.push(line);
  }
  close();
  return records;
}

function fastaName(header) {
  const first = header.slice(1).trim().split(/\s/, 1)[0];
  const [database, accession] = first.split("|");
  return ["sp", "tr"].includes(database) && accession ? accession : first;
}

const columnName = (text) => text.trim().toLowerCase().replaceAll(" ", "_");

function readTable(text) {
  const header = text.split(/\r\n?|\n/, 1)[0];
  const delimiter = ["\t", ";", ","].reduce((best, mark) => (header.split(mark).length > header.split(best).length ? mark : best));
  const [names, ...rows] = readRows(text, delimiter);
  const known = names.map(columnName);
  const found = SEQUENCE_COLUMNS.map((name) => known.indexOf(name)).find((place) => place >= 0) ?? -1;
  const filled = rows.filter((row) => row.length > 1 || row[0] !== "");
  return filled.map((row) => ({ id: "", sequence: (row[found] ?? "").replace(/[\r\n]/g, "") }));
}

function readRows(text, delimiter) {
  const rows = [[]];
  const pattern = new RegExp(`[ ]*(?:"([^"]*(?:""[^"]*)*)"|([^${delimiter}\\r\\n]*))(${delimiter}|\\r\\n?|\\n|$)`, "y");
  while (pattern.lastIndex < text.length) {
    const match = pattern.exec(text);
    if (!match) return rows; // a quote is not closed; the service says where
    rows.at(-1).push(match[1]?.replaceAll('""', '"') ?? match[2].trim());
    if (match[3] !== delimiter && pattern.lastIndex < text.length) rows.push([]);
    if (match[3] === "") break;
  }
  return rows;
}
