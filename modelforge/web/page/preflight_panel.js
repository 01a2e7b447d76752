// What a training would take of this machine, and all that speaks against it, while it is being asked for.
import { post } from "./api.js";
import { html } from "./dom.js";
import { bytes, count } from "./format.js";
import { Empty, Facts } from "./parts.js";
import { waysIn, wayInWords } from "./remedies.js";
import { useAnswer } from "./store.js";

const AFTER_CHANGE = 400;
const PARTS = [
  ["weights_bytes", "Weights", "blue"], ["gradients_bytes", "Gradients", "violet"], ["optimizer_bytes", "Optimizer", "green"],
  ["activations_bytes", "Activations", "accent"], ["process_bytes", "The process itself", "amber"],
];

const pause = (signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, AFTER_CHANGE);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    reject(signal.reason);
  });
});

/** The answer for a body, once it has rested; the question before is taken back. `body`: null asks nothing. */
export function usePreflight(body) {
  return useAnswer(async (signal) => {
    if (body === null) return null;
    await pause(signal);
    return post("/api/preflight", body, signal);
  }, [JSON.stringify(body)]);
}

/** The problems of an answer, or of a refusal, by the field that they are at. */
export function problemsByField(preflight) {
  const refused = preflight.problem;
  const all = refused
    ? (refused.problems.length ? refused.problems : [{ field: refused.field, message: refused.message, remedy: refused.detail }])
    : (preflight.value?.problems ?? []);
  const by = new Map();
  for (const problem of all) {
    const field = (problem.field ?? "").split(/[.[]/)[0];
    by.set(field, [...(by.get(field) ?? []), problem]);
  }
  return by;
}

/** `make`: `{ known, set, asked }`: what a button of a remedy does with the settings that it has. */
export function Problems({ of = [], make }) {
  return of.map((problem) => html`<div class="refusal" role="alert">
    <strong><bdi>${problem.message}</bdi></strong>
    ${problem.remedy && html`<p><bdi>${problem.remedy}</bdi></p>`}
    <${Ways} problem=${problem} ...${make} />
  </div>`);
}

function Ways({ problem, known, set, asked }) {
  const ways = waysIn(problem.remedy ?? "", known);
  const isSet = problem.field in asked && !["task", "strategy", "model_name", "dataset"].includes(problem.field);
  if (!ways.length && !isSet) return null;
  return html`<div class="actions">
    ${ways.map((way) => html`<button type="button" onClick=${() => set(way)}>Use ${wayInWords(way)}</button>`)}
    ${isSet && html`<button type="button" onClick=${() => set({ [problem.field]: undefined })}>Leave out ${problem.field}</button>`}
  </div>`;
}

export function PreflightPanel({ preflight, show }) {
  const { value, problem, busy } = preflight;
  if (!value && !problem) return html`<${Empty}>${busy ? "Looking at what it takes …" : "What it takes is said here, once there is a dataset."}<//>`;
  const by = problemsByField(preflight);
  const all = [...by.entries()].flatMap(([field, problems]) => problems.map((one) => ({ ...one, at: field })));
  return html`<div aria-busy=${busy} class=${busy ? "stale" : ""}>
    <p role="status" class=${busy ? "verdict" : all.length ? "verdict error-word" : "verdict fits"}>${busy ? "Looking again …" : all.length ? `${count(all.length)} ${all.length === 1 ? "thing speaks" : "things speak"} against it` : "✓ It can be trained like this"}</p>
    ${all.length > 0 && html`<ul class="lines">${all.map((one) => html`<li><bdi>${one.message}</bdi> ${one.at && html`<button type="button" class="quiet" onClick=${() => show(one.at)}>Show ${one.at}</button>`}</li>`)}</ul>`}
    ${value && html`<${Memory} memory=${value.memory} /><${Facts} of=${[
      ["Records to train on", value.records && count(value.records.train)], ["Held out", value.records?.evaluation ? count(value.records.evaluation) : null],
      ["On the disk", value.disk.required_bytes === null ? null : `${bytes(value.disk.required_bytes)} of ${bytes(value.disk.available_bytes)} free`],
      ["Checkpoints", value.disk.checkpoints && `${count(value.disk.checkpoints)} of ${bytes(value.disk.checkpoint_bytes)}`],
      ["Batch size", `${count(value.memory.batch_size)}${value.memory.largest_batch_size ? ` of up to ${count(value.memory.largest_batch_size)}` : ""}`],
      ["Tokens an example", value.memory.sequence_length && `${count(value.memory.sequence_length)}${value.memory.largest_sequence_length ? ` of up to ${count(value.memory.largest_sequence_length)}` : ""}`],
    ]} />`}
  </div>`;
}

/** In one process; where several share the memory, each part is theirs together. */
function Memory({ memory }) {
  const parts = PARTS.map(([name, label, colour]) => ({ label, colour, size: memory[name] ?? 0 })).filter(({ size }) => size > 0);
  const one = parts.reduce((sum, { size }) => sum + size, 0);
  const known = memory.weights_bytes !== null;
  const needed = memory.required_bytes ?? (known ? one : null);
  const scale = Math.max(needed ?? 0, memory.available_bytes);
  const width = (size) => ({ width: `${(100 * size) / scale}%` });
  const times = needed && one ? needed / one : 1;
  const place = memory.device === "gpu" ? "on the GPU" : "of memory";
  return html`<div class="memory">
    <p><strong>${needed === null ? "Memory: not known" : `About ${bytes(needed)}`}</strong>${needed !== null && ` of ${bytes(memory.available_bytes)} ${place} that are free`}</p>
    <div class=${`bar ${needed > memory.available_bytes ? "too-much" : ""}`} role="img" aria-label=${known ? parts.map(({ label, size }) => `${label}: ${bytes(size * times)}`).join(", ") : "Not known"}>
      <span class="free" style=${width(memory.available_bytes)}></span>
      <span class="taken-parts">${known && parts.map(({ label, colour, size }) => html`<span key=${label} class=${`part ${colour}`} style=${width(size * times)}></span>`)}</span>
    </div>
    ${known && html`<ul class="bar-legend">${parts.map(({ label, colour, size }) => html`<li key=${label}><i class=${`dot ${colour}`}></i>${label} <b>${bytes(size * times)}</b></li>`)}</ul>`}
    <p class="soft">${memory.note}</p>
  </div>`;
}
