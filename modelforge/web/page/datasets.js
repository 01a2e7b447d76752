// The datasets that are there, and one of them: its records, its lengths, and what was made of it.
import { get, path, query, remove } from "./api.js";
import { Report } from "./dataset_report.js";
import { html, useState } from "./dom.js";
import { BUILT_IN } from "./first_steps.js";
import { STRATEGIES, TASKS, bytes, count, moment, shortName, since } from "./format.js";
import { jobName } from "./job_summary.js";
import { jobs } from "./jobs.js";
import { Action, Badge, Card, Empty, Facts, Listing, Refusal, Title, Typed } from "./parts.js";
import { RecordTable } from "./record_table.js";
import { go, link } from "./router.js";
import { useAnswer, useStore } from "./store.js";
import { Statistics, TokenPreview } from "./token_preview.js";
import { Ignored, UploadBox } from "./upload_box.js";

const COLUMNS = [["Name", "head name"], ["Records", "number"], ["Format"], ["Size", "number"], ["Revision", "number"], ["Uploaded"], ["Last used by"]];
const REVISION_COLUMNS = [["Revision", "number"], ["Records", "number"], ["Size", "number"], ["Uploaded"], ["SHA-256", "wide"]];
const TABS = [["records", "Records"], ["tokens", "Tokens and lengths"], ["uses", "Uses and revisions"]];

export const Datasets = ({ name, values }) => (name === null ? html`<${DatasetList} />` : html`<${OneDataset} name=${name} values=${values} />`);

const usesOf = (job) => [job.dataset, ...job.dataset.parts.map((part) => part.dataset), job.validation_dataset].filter(Boolean);

function DatasetList() {
  const { value, problem, again } = useAnswer((signal) => get("/api/datasets", signal), []);
  const all = useStore(jobs) ?? [];
  const datasets = value?.datasets.toReversed() ?? null;
  return html`
    <${Title} name="Datasets" />
    <${UploadBox} onTaken=${again} />
    <${Refusal} problem=${problem} />
    ${datasets?.length === 0 && html`<${Empty}>None yet. A dataset is a file of records, one a line: a question and its answer, a chat, a text.<//>`}
    ${datasets?.length > 0 && html`<${Listing} columns=${COLUMNS} rows=${datasets.map((one) => [one.filename, [
      html`<a href=${link("datasets", one.filename)}><bdi class="few">${one.filename}</bdi></a>`, count(one.num_examples),
      html`<code>${one.format}</code>`, bytes(one.size_mb * 1e6), count(one.revision),
      html`<time datetime=${one.uploaded_at} title=${moment(one.uploaded_at)}>${since(one.uploaded_at)}</time>`,
      lastUse(all.find((job) => usesOf(job).some((used) => used.filename === one.filename))),
    ]])} />`}`;
}

const lastUse = (job) => (job ? html`<a href=${link("jobs", job.job_id)}>${job.job_id}</a> <${Badge} status=${job.status} />` : null);

function OneDataset({ name, values }) {
  const revision = values.get("revision");
  const tab = values.get("tab") ?? "records";
  const { value, problem } = useAnswer((signal) => get(query(path`/api/datasets/${name}`, { revision }), signal), [name, revision]);
  if (value === null) return html`<${Title} name=${name}><bdi>${name}</bdi><//><${Refusal} problem=${problem} />`;
  const away = async () => {
    await remove(path`/api/datasets/${name}`);
    go("datasets");
  };
  const download = query(path`/api/datasets/${name}/download`, { revision });
  const kind = value.compression ? `${value.container}, packed by ${value.compression}` : value.container;
  return html`
    <${Title} name=${name} actions=${html`<a class="button primary" href=${link("start", null, { dataset: name })}>Train on it</a>
      <a class="button" href=${download} download>Download</a>
      <${Action} kind="danger" confirm="Delete it, with all revisions?" onClick=${away}>Delete<//>`}><bdi>${name}</bdi><//>
    <${Refusal} problem=${problem} />
    ${value.revision < value.revisions.at(-1).revision && html`<p class="warning">This is revision ${count(value.revision)}, an earlier one. <a href=${link("datasets", name)}>Show the last one</a>.</p>`}
    <${Card}><${Facts} of=${[
      ["Records", count(value.num_examples)], ["Format", html`<code>${value.format}</code>`], ["Kind", kind], ["Size", bytes(value.size_bytes)],
      ["Revision", value.revisions.length > 1 ? `${count(value.revision)} of ${count(value.revisions.length)}` : count(value.revision)],
      ["Uploaded", moment(value.uploaded_at)], ["From", value.source && html`<bdi>${value.source}</bdi>`],
      ["For", value.tasks.map((task) => TASKS[task] ?? task).join(", ")],
      ["By", value.strategies.map((one) => STRATEGIES[one] ?? one).join(", ")],
    ]} /><${Columns} columns=${value.columns} />
    <${Report} report=${value} /><//>
    <nav class="tabs" aria-label="Parts of the dataset">
      ${TABS.map(([key, title]) => html`<a href=${link("datasets", name, revision ? { tab: key, revision } : { tab: key })} aria-current=${key === tab ? "page" : undefined}>${title}</a>`)}
    </nav>
    ${tab === "tokens" ? html`<${Tokens} dataset=${value} revision=${revision} />`
      : tab === "uses" ? html`<${Uses} dataset=${value} name=${name} />`
      : html`<${RecordTable} key=${value.sha256} filename=${name} revision=${revision} total=${value.num_examples} />`}`;
}

function Columns({ columns }) {
  const read = Object.entries(columns.mapping ?? {}).map(([field, column]) => `${field}: ${[column].flat().join(", ")}`);
  return html`
    ${columns.used.length > 0 && html`<p class="soft">Read: ${columns.used.map((one, index) => html`${index > 0 && ", "}<bdi><code>${one}</code></bdi>`)}</p>`}
    ${read.length > 0 && html`<p class="soft">As: <bdi>${read.join("; ")}</bdi></p>`}
    <${Ignored} columns=${columns} />`;
}

/** By the model that was last trained on it, or the one that is built in, until another is named. */
function Tokens({ dataset, revision }) {
  const last = useStore(jobs, (all) => all?.find((job) => job.dataset.filename === dataset.filename)?.model_name) ?? BUILT_IN;
  const models = useAnswer((signal) => get("/api/models", signal), []).value?.models ?? [];
  const [named, setNamed] = useState(null);
  const [length, setLength] = useState(null);
  const seen = { model_name: named ?? last, max_seq_length: length, revision };
  return html`<${Card} title="As a model reads it">
    <div class="fields">
      <div class="field"><label for="seen-by">Model</label>
        <${Typed} id="seen-by" list="models-there" value=${seen.model_name} onTyped=${(text) => setNamed(text || null)} />
        <datalist id="models-there"><option value=${BUILT_IN} />${models.map((one) => html`<option value=${String(one.id)}>${one.name}</option>`)}</datalist>
        <small>${shortName(last) === BUILT_IN ? "The built-in one" : "The last one that was trained on it"}, or another by its name or number.</small></div>
      <div class="field"><label for="cut-at">Cut at, in tokens</label>
        <${Typed} id="cut-at" type="number" min="1" value=${length ?? ""} placeholder="as a training would" onTyped=${(text) => setLength(text || null)} />
        <small><code>max_seq_length</code></small></div>
    </div>
    <${Statistics} filename=${dataset.filename} seen=${seen} />
    <h3>The first records</h3>
    <${TokenPreview} filename=${dataset.filename} seen=${seen} />
  <//>`;
}

function Uses({ dataset, name }) {
  const known = useStore(jobs) ?? [];
  return html`
    <${Card} title="Jobs that trained on it">
      ${dataset.jobs.length === 0 ? html`<${Empty}>None yet.<//>` : html`<ul class="lines">${dataset.jobs.map((jobId) => {
        const job = known.find((one) => one.job_id === jobId);
        return html`<li key=${jobId}><a href=${link("jobs", jobId)}>${jobId}</a> ${job && html`<${Badge} status=${job.status} /> <bdi>${jobName(job)}</bdi>`}</li>`;
      })}</ul>`}
    <//>
    <${Card} title="Revisions">
      <${Listing} columns=${REVISION_COLUMNS} rows=${dataset.revisions.toReversed().map((one) => [one.revision, [
        html`<a href=${link("datasets", name, { revision: one.revision, tab: "uses" })} aria-current=${one.revision === dataset.revision ? "true" : undefined}>${count(one.revision)}</a>`,
        count(one.num_examples), bytes(one.size_mb * 1e6), moment(one.uploaded_at), html`<code>${one.sha256}</code>`,
      ]])} />
    <//>`;
}
