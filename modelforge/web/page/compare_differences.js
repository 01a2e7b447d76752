// What jobs differ in: parameters, data, model, environment and results, and nothing that is the same.
import { get } from "./api.js";
import { Swatch } from "./compare_swatch.js";
import { html, useMemo } from "./dom.js";
import { STRATEGIES, TASKS, count, duration, figure, ranSeconds } from "./format.js";
import { figureName } from "./models.js";
import { Card, Empty, Refusal } from "./parts.js";
import { link } from "./router.js";
import { useAnswer } from "./store.js";

const text = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
const hash = (value) => value?.slice(0, 16);

const dataOf = ({ dataset, validation_dataset: judged, left_out_examples: left, cut_examples: cut }) => ({
  Dataset: dataset.filename, Revision: dataset.revision, Records: count(dataset.num_examples), "SHA-256": hash(dataset.sha256),
  From: dataset.source, "Left out": left, Cut: cut, "Held-out dataset": judged?.filename, "its SHA-256": hash(judged?.sha256),
});
const modelOf = (job) => ({
  Task: TASKS[job.task] ?? job.task, Model: job.model_name, Weights: job.base_revision, Provider: job.provider,
  Strategy: STRATEGIES[job.strategy] ?? job.strategy, "Goes on from": job.lineage[0]?.name,
});
const environmentOf = ({ environment, gpus }) => ({
  Python: environment?.python, Platform: environment?.platform, Device: environment?.device, GPU: gpus.join(", ") || null,
  ...environment?.versions,
});
const resultsOf = (job, model) => ({
  State: job.status, Steps: job.current_step === null ? null : `${count(job.current_step)} of ${count(job.total_steps)}`,
  "Ran for": job.finished_at && duration(ranSeconds(job)), Attempts: job.attempt, "Last loss": figure(job.loss),
  "Last reward": figure(job.reward), "Last KL": figure(job.kl), "Last held-out loss": figure(job.eval_loss),
  ...Object.fromEntries(Object.entries(model?.metrics ?? {}).map(([name, value]) => [metricName(name), figure(value)])),
});
const metricName = (name) => (name.startsWith("base_") ? `${figureName(name.slice(5))}, of the base` : `${figureName(name)}, of the model`);

/** `[name, [[row, values]]]` for each part: the rows whose values are not all the same. */
export function differences(jobs, models) {
  const parts = [
    ["Results", (job) => resultsOf(job, models.find(({ id }) => id === job.model_id))],
    ["Parameters in effect", (job) => job.config], ["Data", dataOf], ["Model", modelOf], ["Environment", environmentOf],
  ];
  return parts.map(([part, of]) => {
    const told = jobs.map(of);
    const names = [...new Set(told.flatMap(Object.keys))];
    const rows = names.map((name) => [name, told.map((one) => text(one[name]))]);
    return [part, rows.filter(([, values]) => new Set(values).size > 1)];
  }).filter(([, rows]) => rows.length > 0);
}

export function Differences({ jobs }) {
  const { value, problem } = useAnswer((signal) => get("/api/models", signal), [jobs.map((job) => job.model_id).join()]);
  const parts = useMemo(() => differences(jobs, value?.models ?? []), [jobs, value]);
  return html`<${Card} title="What they differ in">
    <${Refusal} problem=${problem} />
    ${parts.length === 0 ? html`<${Empty}>In nothing that is on record.<//>` : html`<div class="table differences" tabindex="0" role="region" aria-label="Differences"><table>
      <thead><tr><th>What</th>${jobs.map((job, index) => html`<th>${index + 1} <${Swatch} index=${index} /> <a href=${link("jobs", job.job_id)}>${job.job_id}</a></th>`)}</tr></thead>
      ${parts.map(([part, rows]) => html`<tbody key=${part}>
        <tr class="part"><th scope="rowgroup" colspan=${jobs.length + 1}>${part}</th></tr>
        ${rows.map(([name, values]) => html`<tr key=${name}><th scope="row">${name}</th>${values.map((one) => html`<td><bdi>${one}</bdi></td>`)}</tr>`)}
      </tbody>`)}
    </table></div>`}
  <//>`;
}
