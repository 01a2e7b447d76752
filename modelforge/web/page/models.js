// The trained models: what each was made of, what it learned against its base, and what can be made of it.
import { get, path, query, remove } from "./api.js";
import { html } from "./dom.js";
import { STRATEGIES, TASKS, bytes, count, figure, moment, shortName } from "./format.js";
import { jobs } from "./jobs.js";
import { Lineage } from "./lineage.js";
import { ModelWork } from "./model_work.js";
import { Action, Card, Empty, Facts, Listing, Refusal, Title } from "./parts.js";
import { go, link } from "./router.js";
import { useAnswer, useStore } from "./store.js";

const JOBS_READ = 200;
const NAMES = {
  final_loss: "Loss at the end of training", perplexity: "Perplexity", eval_loss: "Held-out loss",
  eval_perplexity: "Held-out perplexity",
};
const RUNNING = /_(runtime|per_second|time)$/; // how fast it was judged
const COLUMNS = [
  ["Model", "head name"], ["Base", "name"], ["Task", "word"], ["Strategy"], ["Kind", "word"], ["Held-out loss", "number"],
  ["Perplexity", "number"], ["Size", "number"], ["Made", "word"],
];
const EVALUATION_COLUMNS = [["When"], ["Dataset", "name"], ["Records", "number"], ["Judged"], ["Figures", "wide"], ["Job", "keep"]];
const DELIVERY_COLUMNS = [["When"], ["Where", "wide"], ["As"], ["Size", "number"], ["Job", "keep"]];
const DELIVERS = new Set(["export", "push"]);
const KINDS = { adapter: "adapter", full: "whole weights" };

export const figureName = (name) => {
  const words = name.replace(/^eval_/, "Held-out ").replaceAll("_", " ");
  return NAMES[name] ?? words[0].toUpperCase() + words.slice(1);
};

export function Models({ name }) {
  return name === null ? html`<${ModelList} />` : html`<${OneModel} modelId=${name} />`;
}

function ModelList() {
  const made = useStore(jobs, (all) => all?.filter((job) => job.model_id !== null).length);
  const { value, problem } = useAnswer((signal) => get("/api/models", signal), [made]);
  return html`
    <${Title} name="Models" actions=${html`<a class="button primary" href=${link("start")}>New training</a>`} />
    <${Refusal} problem=${problem} />
    ${value?.models.length === 0 && html`<${Empty}>None yet: a training that completes makes one. <a href=${link("start")}>Start a training</a>.<//>`}
    ${value?.models.length > 0 && html`<${Listing} columns=${COLUMNS} rows=${value.models.toReversed().map((model) => [model.id, cellsOf(model)])} />`}`;
}

function cellsOf(model) {
  const { metrics } = model;
  return [
    html`<a href=${link("models", model.id)}><bdi class="few">${model.name}</bdi></a> <small class="soft">model ${model.id}</small>`,
    html`<bdi class="few">${shortName(model.base_model)}</bdi>`, TASKS[model.task] ?? model.task, STRATEGIES[model.strategy] ?? model.strategy,
    model.merged_from === null ? (KINDS[model.kind] ?? model.kind) : `merged from ${model.merged_from}`,
    against(metrics.eval_loss, metrics.base_eval_loss),
    against(metrics.eval_perplexity ?? metrics.perplexity, metrics.base_eval_perplexity),
    bytes(model.size_mb * 1e6), moment(model.created_at),
  ];
}

/** A figure beside that of the base; null where there is none. */
const against = (tuned, base) => ((tuned ?? null) === null ? null : html`${figure(tuned)}${(base ?? null) !== null && html` <span class="soft">base ${figure(base)}</span>`}`);

function OneModel({ modelId }) {
  // What comes of a model by later jobs is read anew when one of them goes on.
  const later = useStore(jobs, (all) => all?.filter((job) => job.kind !== "training").map((job) => job.job_id + job.status).join());
  const { value: model, problem } = useAnswer((signal) => get(path`/api/models/${modelId}`, signal), [modelId, later]);
  const { value: beside } = useAnswer(async (signal) => {
    const [{ models }, { jobs: found }] = await Promise.all([
      get("/api/models", signal), get(query("/api/jobs", { limit: JOBS_READ }), signal),
    ]);
    return { models, jobs: found };
  }, [modelId, later]);
  if (problem?.status === 404 || model === null) {
    return html`<${Title} name=${`Model ${modelId}`} /><${Refusal} problem=${problem} /><p><a href=${link("models")}>All models</a></p>`;
  }
  const end = async () => {
    await remove(path`/api/models/${modelId}`);
    go("models");
  };
  return html`
    <${Title} name=${model.name} actions=${html`
      <a class="button primary" href=${link("playground", null, { model: model.id })}>Try it</a>
      <${Action} kind="danger" confirm="Delete the model and its files?" onClick=${end}>Delete<//>`}><bdi>${model.name}</bdi><//>
    <p class="over"><a href=${link("models")}>Models</a> · model ${model.id} · ${KINDS[model.kind] ?? model.kind} · made ${moment(model.created_at)}</p>
    <${Refusal} problem=${problem} />
    <${Card} title="Where it comes from, and what came of it">
      ${beside ? html`<${Lineage} model=${model} models=${beside.models} jobs=${beside.jobs} />` : html`<${Empty}>Reading …<//>`}
    <//>
    <div class="two">
      <${Figures} model=${model} />
      <${Card} title="Make something of it"><${ModelWork} key=${model.id} model=${model} /><//>
    </div>
    <${Evaluations} model=${model} />
    <${Deliveries} jobs=${(beside?.jobs ?? []).filter((job) => job.source_model_id === model.id && DELIVERS.has(job.kind) && job.delivery)} />
    <${Making} model=${model} />`;
}

/** Every final figure, beside that of the untrained model on the same records; how fast it went is folded away. */
function Figures({ model: { metrics, perplexity_of: perplexityOf } }) {
  const names = Object.keys(metrics).filter((name) => !name.startsWith("base_") && (metrics[name] !== null || metrics[`base_${name}`] !== undefined));
  const judged = names.filter((name) => (metrics[`base_${name}`] ?? null) !== null);
  const isLearned = (name) => name in NAMES || (name.startsWith("eval_") && !RUNNING.test(name));
  const learned = [...judged, ...names.filter((name) => isLearned(name) && !judged.includes(name))];
  const others = names.filter((name) => !learned.includes(name));
  return html`<${Card} title="What it learned">
    ${names.length === 0 ? html`<${Empty}>There are no figures of it.<//>` : html`<${FigureTable} names=${learned} metrics=${metrics} />`}
    ${perplexityOf && html`<p class="soft">The perplexity is that of the ${perplexityOf === "held_out_records" ? "held-out" : "last training"} records.</p>`}
    ${others.length > 0 && html`<details><summary>Other figures of the training</summary><dl class="parameters">${others.map((name) => html`<div><dt>${figureName(name)}</dt><dd>${figure(metrics[name])}</dd></div>`)}</dl></details>`}
  <//>`;
}

const FigureTable = ({ names, metrics }) => html`<div class="table"><table>
  <caption class="unseen">Figures of the base against those of this model</caption>
  <thead><tr><th>Figure</th><th class="number">Base</th><th class="number">This model</th><th class="number">Change</th></tr></thead>
  <tbody>${names.map((name) => html`<tr key=${name}>
    <td>${figureName(name)}</td><td class="number">${figure(metrics[`base_${name}`])}</td>
    <td class="number"><strong>${figure(metrics[name])}</strong></td><td class="number">${change(metrics[`base_${name}`], metrics[name])}</td>
  </tr>`)}</tbody>
</table></div>`;

const signed = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1, signDisplay: "exceptZero" });
const change = (base, tuned) => (base && tuned !== null ? signed.format((tuned - base) / Math.abs(base)) : "");

function Evaluations({ model: { evaluations } }) {
  if (evaluations.length === 0) return null;
  return html`<${Card} title="Evaluations by later jobs">
    <${Listing} columns=${EVALUATION_COLUMNS} rows=${evaluations.toReversed().map((one) => [one.job_id, [
      moment(one.at), html`<bdi class="few">${one.dataset.filename}</bdi>`, count(one.records), one.base_model ? "the base" : "this model",
      Object.entries(one.metrics).map(([name, value]) => html`<div>${figureName(name)} <strong>${figure(value)}</strong></div>`),
      html`<a href=${link("jobs", one.job_id)}>${one.job_id}</a>`,
    ]])} />
  <//>`;
}

/** Where copies of it are, and what of it a copy has not. */
function Deliveries({ jobs: made }) {
  if (made.length === 0) return null;
  return html`<${Card} title="Exports and pushes">
    <${Listing} columns=${DELIVERY_COLUMNS} rows=${made.map(({ job_id: jobId, finished_at: at, delivery }) => [jobId, [
      moment(at),
      html`<code><bdi>${delivery.path ?? delivery.url}</bdi></code>
        ${delivery.sha256 && html`<br /><small class="soft">SHA-256 <code>${delivery.sha256}</code></small>`}
        ${delivery.warnings?.length > 0 && html`<ul>${delivery.warnings.map((warning) => html`<li>${warning}</li>`)}</ul>`}`,
      `${delivery.format ?? (delivery.private ? "private on the hub" : "on the hub")} ${delivery.quantization ?? ""}`,
      bytes(delivery.size_bytes), html`<a href=${link("jobs", jobId)}>${jobId}</a>`,
    ]])} />
  <//>`;
}

const shown = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));

function Making({ model }) {
  const { dataset } = model;
  return html`
    <${Card} title="Card">
      <${Facts} of=${[
        ["Base", html`<bdi>${model.base_model}</bdi>`], ["Task", TASKS[model.task] ?? model.task],
        ["Strategy", STRATEGIES[model.strategy] ?? model.strategy], ["Provider", model.provider],
        ["Job", html`<a href=${link("jobs", model.job_id)}>${model.job_id}</a>`],
        ["Dataset", dataset.parts.length || dataset.revision === null ? html`<bdi>${dataset.filename}</bdi>` : html`<a href=${link("datasets", dataset.filename)}><bdi>${dataset.filename}</bdi></a>`],
        ["Revision", dataset.revision], ["Records", count(dataset.num_examples)],
        ["Held out", model.validation_dataset && html`<bdi>${model.validation_dataset.filename}</bdi>`],
        ["Size", bytes(model.size_mb * 1e6)], ["SHA-256 of the data", html`<code>${dataset.sha256}</code>`],
        ["Reward model", model.reward_model_path && html`<code>${model.reward_model_path}</code>`], ["Folder", html`<code>${model.path}</code>`],
      ]} />
    <//>
    <${Card} title="Parameters in effect">
      <dl class="parameters">${Object.entries(model.training_params).filter(([, value]) => value !== null).map(([name, value]) => html`<div><dt>${name}</dt><dd><bdi>${shown(value)}</bdi></dd></div>`)}</dl>
    <//>`;
}
