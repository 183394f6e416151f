// Large inputs: handed over, watched until they are done, and collected.

import { PREDICTION_COLUMNS, csvHead, csvLines } from "./csv.js";
import { ServiceError, ask, pause, send } from "./service.js";

/** Rows that the page holds; the rest of a larger job is in its CSV alone. */
export const MOST_ROWS = 100_000;

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 3000;
const MOST_FAILURES = 8; // in a row, with the longest pause: a connection may be lost for half a minute

/** Hand over a file; the answer names the job. */
export const startJob = (file, query, { signal, waiting }) => ask(`v1/jobs?${query}`, { file, signal, waiting });

/**
 * Wait until a job is done.
 *
 * @param {string} id
 * @param {{signal: AbortSignal, progress: (job: object) => void}} how `progress` gets each state of the job.
 * @throws {ServiceError} The job failed, was cancelled or is gone.
 */
export async function finishJob(id, { signal, progress }) {
  let failures = 0;
  for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(1.3 * wait, LONGEST_PAUSE_MS)) {
    try {
      const job = await ask(jobPath(id), { signal });
      failures = 0;
      progress(job);
      if (job.state === "done") return job;
      if (job.state === "failed") throw new ServiceError(`The job failed: ${job.message || "the service does not say why"}`, 500);
      if (job.state === "cancelled") throw new ServiceError("The job was cancelled.", 410);
    } catch (error) {
      const passing = error instanceof ServiceError && [0, 502, 503, 504].includes(error.status);
      if (!passing || ++failures === MOST_FAILURES) throw error;
    }
    await pause(wait, signal);
  }
}

/** Rows of a job that is done, `MOST_ROWS` of them at most. */
export async function collectRows(id, { signal }) {
  const rows = [];
  for await (const some of results(id, signal)) {
    rows.push(...some);
    if (rows.length >= MOST_ROWS) break;
  }
  return rows.slice(0, MOST_ROWS);
}

/** All rows as a file; they are text as they come, so that a million of them fit into memory. */
export async function collectCsv(id, { signal }) {
  const parts = [csvHead(PREDICTION_COLUMNS)];
  for await (const some of results(id, signal)) parts.push(csvLines(PREDICTION_COLUMNS, some));
  return new Blob(parts, { type: "text/csv" });
}

async function* results(id, signal) {
  const response = await send(`${jobPath(id)}/result?format=jsonl`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (let done = false, value; !done; ) {
      ({ done, value } = await reader.read());
      const lines = (rest + (value ?? "")).split("\n");
      rest = done ? "" : lines.pop();
      yield lines.filter((line) => line.trim()).map((line) => JSON.parse(line));
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The result broke off; try again.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** End a job; one that is over already stays as it is. */
export const cancelJob = (id) => send(jobPath(id), { method: "DELETE" }).catch(() => {});

const jobPath = (id) => `v1/jobs/${encodeURIComponent(id)}`;
