// The page: what is asked goes to the service, what comes back is shown.

import { cardElements } from "./card.js";
import { by, count, save, several } from "./dom.js";
import { cancelJob, collectCsv, collectRows, finishJob, startJob } from "./jobs.js";
import { readFile, readText } from "./reading.js";
import { Results } from "./results.js";
import { ScanSection } from "./scan.js";
import { ServiceError, ask, storeKey, storedKey } from "./service.js";

const MOST_AT_ONCE = 2000; // proteins; more are a job
const LONGEST_NAME = 200; // letters that the service takes
const EXAMPLE = `>sp|P00698|LYSC_CHICK Lysozyme C OS=Gallus gallus
MRSLLILVLCFLPLAALGKVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQA
TNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDG
NGMNAWVAWRNRCKGTDVQAWIRGCRL
>sp|Q60034|DYR_THEMA Dihydrofolate reductase OS=Thermotoga maritima
MAKVIFVLAMDVSGKIASSVESWSSFEDRKNFRKITTEIGNVVMGRITFEEIGRPLPERL
NVVLTRRPKTSNNPSLVFFNGSPADVVKFLEGKGYERVAVIGGKTVFTEFLREKLVDELF
VTVEPYVFGKGIPFFDEFEGYFPLKLLEMRRLNERGTLFLKYSVEKSHR
`;

let model = null;
let work = null; // AbortController of what is under way

const scanning = new ScanSection();
const results = new Results((row) =>
  during(`Scanning ${row.id}`, async (how) => {
    await scanning.run(row, how);
    return `${row.id} is scanned.`;
  }),
);

/** Do one thing at a time, with its progress and its error on the page; `act` returns what to say at its end. */
async function during(title, act) {
  if (work) {
    by("said").textContent = "Something is still under way: wait for it, or cancel it.";
    return;
  }
  const { signal } = (work = new AbortController());
  by("error").hidden = true;
  by("said").textContent = `${title}…`;
  showProgress();
  const waiting = (seconds) => (by("said").textContent = `The service is busy; trying again in ${several(seconds, "second")}.`);
  try {
    const said = await act({ signal, waiting });
    by("said").textContent = said;
  } catch (error) {
    showError(error);
  } finally {
    work = null;
    by("work").hidden = true;
  }
}

function showError(error) {
  const cancelled = error.name === "AbortError";
  by("said").textContent = cancelled ? "Cancelled." : "";
  if (cancelled) return;
  const known = error instanceof ServiceError;
  if (!known) console.error(error);
  by("error").textContent = known ? error.message : "Something on this page went wrong; reload it and try again.";
  by("error").hidden = false;
  by("error").scrollIntoView({ block: "nearest" });
  if (!error.wantsKey) return;
  by("access").open = true;
  by("key").focus();
}

function showProgress(job) {
  by("work").hidden = false;
  const bar = by("progress");
  if (job?.records) {
    bar.max = job.records;
    bar.value = job.finished;
  } else bar.removeAttribute("value");
  by("finished").textContent = job ? `${count(job.finished)} of ${several(job.records, "protein")}` : "";
}

async function predict(how) {
  const file = by("file").files[0];
  const text = by("text").value;
  if (!file && !text.trim()) throw new ServiceError("Paste a sequence or choose a file first.");
  const given = file ? await readFile(file) : readText(text);
  how.signal.throwIfAborted();
  if (!file && given.kind === "unknown") {
    throw new ServiceError("This could be one protein or several: put a line “>name” before each sequence.");
  }
  const coverage = Number(by("coverage").value);
  const growth = by("growing").hidden || Number.isNaN(by("growth").valueAsNumber) ? null : by("growth").valueAsNumber;
  const query = new URLSearchParams(growth === null ? { coverage } : { coverage, growth_temperature: growth });
  const sent = file ?? new File([text.trimStart()], given.kind === "table" ? "pasted.csv" : "pasted.fasta");
  scanning.hide();
  const job = given.total > MOST_AT_ONCE ? await startedJob(sent, query, given, how) : null;
  if (job) {
    history.replaceState(null, "", `#job=${job.id}&coverage=${coverage}`);
    return followJob(job.id, coverage, how, given.records);
  }
  if (file || given.kind === "table" || given.total > MOST_AT_ONCE) {
    return showAnswer(await ask(`v1/predict/file?${query}`, { file: sent, ...how }), given.records);
  }
  const records = given.records.map(({ id, sequence }) => ({ id: [...id].slice(0, LONGEST_NAME).join(""), sequence }));
  const answer = await ask("v1/predict", { json: { records, coverage, growth_temperature_celsius: growth }, ...how });
  answer.predictions.forEach((row, k) => (row.id = given.records[k].id));
  return showAnswer(answer, given.records);
}

/** The job, or null where the service keeps none but may take the input at once. */
async function startedJob(file, query, { total }, how) {
  try {
    return await startJob(file, query, how);
  } catch (error) {
    if (error.kind === "bad_setting" && total <= model?.limits.most_records) return null;
    throw error;
  }
}

async function followJob(id, coverage, { signal }, records = []) {
  signal.addEventListener("abort", () => cancelJob(id), { once: true });
  let tenths = -1;
  const progress = (job) => {
    showProgress(job);
    const now = Math.floor((10 * job.finished) / Math.max(job.records, 1));
    if (now > tenths) by("said").textContent = job.state === "queued" ? "Waiting for a turn…" : `Predicting, ${10 * now} % done…`;
    tenths = now;
  };
  try {
    const { records: total } = await finishJob(id, { signal, progress });
    const predictions = await collectRows(id, { signal });
    const saveAll = () =>
      during("Fetching the CSV", async (how) => {
        save("predictions.csv", await collectCsv(id, how));
        return "The CSV is saved.";
      });
    return showAnswer({ model, coverage, predictions }, records, { total, saveAll });
  } catch (error) {
    if (!error.wantsKey) forgetJob();
    throw error;
  }
}

const forgetJob = () => history.replaceState(null, "", location.pathname + location.search);

/** The rows come in the order of the records, unless this page has read the file in another way than the service. */
function showAnswer(answer, records, job = {}) {
  const rows = answer.predictions;
  const same = records.length === (job.total ?? rows.length);
  rows.forEach((row, k) => {
    const sequence = same ? records[k].sequence : "";
    if (row.length === sequence.replace(/[\s.\-]|\*\s*$/g, "").length) row.sequence = sequence;
  });
  results.show(answer, job);
  by("predictions").focus();
  const failed = rows.filter((row) => row.status === "error").length;
  return `${several(job.total ?? rows.length, "protein")}, ${failed ? count(failed) : "none"} without an answer.`;
}

async function showModel() {
  model = await ask("v1/model");
  by("served").textContent = `Answered by ${model.name}, version ${model.version}.`;
  by("growing").hidden = by("growing-why").hidden = !model.takes_growth_temperature;
  const usual = [...by("coverage").options].find((option) => Number(option.value) === model.coverage);
  if (usual) usual.selected = true;
  by("card-text").replaceChildren(...cardElements(model.card));
}

/** Show the model, and the job that the address names: it outlives a closed page. */
async function begin() {
  try {
    await showModel();
  } catch (error) {
    showError(error);
    return;
  }
  const [, id, coverage] = location.hash.match(/^#job=([0-9a-f]{32})&coverage=(0\.\d+)$/) ?? [];
  if (id) during("Fetching the job", (how) => followJob(id, Number(coverage), how));
}

function useKey() {
  const key = by("key").value.trim();
  if (key === storedKey()) return;
  storeKey(key);
  if (!model) begin().then(() => model && (by("error").hidden = true));
}

function choose(file) {
  const files = new DataTransfer();
  files.items.add(file);
  by("file").files = files.files;
  showChoice();
}

function showChoice() {
  const file = by("file").files[0];
  by("text").disabled = Boolean(file);
  by("said").textContent = file ? `${file.name} is predicted, not the text; “Clear” removes it.` : "";
}

function clear() {
  work?.abort();
  by("text").value = by("file").value = by("growth").value = "";
  showChoice();
  by("error").hidden = true;
  results.hide();
  scanning.hide();
  forgetJob();
  by("text").focus();
}

by("question").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey();
  during("Predicting", predict);
});
by("example").addEventListener("click", () => {
  by("file").value = "";
  showChoice();
  by("text").value = EXAMPLE;
  during("Predicting the example", predict);
});
by("cancel").addEventListener("click", () => work?.abort());
by("clear").addEventListener("click", clear);
by("file").addEventListener("change", showChoice);
by("key").addEventListener("change", useKey);
by("key").value = storedKey();

for (const event of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(event, (drag) => {
    if (!drag.dataTransfer.types.includes("Files")) return;
    drag.preventDefault(); // the browser would open the file instead of this page
    by("question").classList.toggle("over", event === "dragenter" || event === "dragover");
    if (event !== "drop") return;
    if (drag.dataTransfer.files.length > 1) showError(new ServiceError("One file at a time: join them, or drop one."));
    else choose(drag.dataTransfer.files[0]);
  });
}

begin();
