// Requests to the service this page came from, with the key of this tab, and its errors as sentences.

const TRIES = 6;
const LONGEST_WAIT_S = 120;
const KEY = "api-key";

const SENTENCES = {
  413: "This is more than the service takes at once; send a part of it.",
  429: "The service is busy; try again in a while.",
  503: "The service is not ready; try again in a while.",
};

/** What the service, or the way to it, has against a request; the message is for people. */
export class ServiceError extends Error {
  constructor(message, status = 0, kind = "") {
    super(message);
    this.status = status;
    this.kind = kind;
  }

  /** Whether another API key would help. */
  get wantsKey() {
    return this.status === 401 || this.status === 403;
  }
}

export const storedKey = () => sessionStorage.getItem(KEY) ?? "";
export const storeKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

/**
 * Send a request; a busy service (429) is asked again when it says so.
 *
 * @param {string} path Relative to the page.
 * @param {{method?: string, json?: object, file?: File, signal?: AbortSignal, waiting?: (seconds: number) => void}} how
 *   Either `json` or `file` is the body; `waiting` is told of each wait.
 * @returns {Promise<Response>} An answer that is no error.
 */
export async function send(path, { method, json, file, signal, waiting = () => {} } = {}) {
  const headers = new Headers();
  const key = storedKey();
  if (key && !/^[\x21-\x7e]+$/.test(key)) throw new ServiceError("An API key has no blanks and no special letters.", 401);
  if (key) headers.set("X-API-Key", key);
  let body;
  if (json) {
    headers.set("Content-Type", "application/json");
    body = JSON.stringify(json);
  } else if (file) {
    body = new FormData();
    body.append("file", file, file.name);
  }
  for (let tried = 1; ; tried++) {
    const response = await reach(path, { method: method ?? (body ? "POST" : "GET"), headers, body, signal });
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After") ?? NaN);
    if (response.status !== 429 || !(wait <= LONGEST_WAIT_S) || tried === TRIES) throw await refusal(response, key);
    const seconds = Math.max(Math.ceil(wait), 1);
    waiting(seconds);
    await pause(1000 * seconds, signal);
  }
}

/** Send a request and read its answer as JSON. */
export async function ask(path, how) {
  const response = await send(path, how);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The answer broke off; try again.");
  }
}

/** Wait, unless the signal ends it. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const end = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => reject(signal.reason, clearTimeout(end)), { once: true });
  });
}

async function reach(path, request) {
  try {
    return await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer; check the connection and try again.");
  }
}

async function refusal(response, key) {
  const { status } = response;
  let kind, message;
  try {
    ({ kind, message } = (await response.json()).error);
  } catch {
    // a proxy on the way answers in its own words, if at all
  }
  let said = typeof message === "string" && message ? sentence(message) : SENTENCES[status];
  if (status === 401 || status === 403) {
    said = key
      ? "The service does not accept this API key: check it under “API key”, or ask for another one."
      : "This service asks for an API key: enter yours under “API key”.";
  }
  return new ServiceError(said ?? `The service answers with error ${status}; try again later.`, status, kind);
}

function sentence(message) {
  const text = message[0].toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
