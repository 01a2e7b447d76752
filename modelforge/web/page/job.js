// One job: its curves, what it was made of, and what is on record of it; without a name, all of them.
import { get, path, query } from "./api.js";
import { CurvesPanel } from "./curves_panel.js";
import { html, useEffect, useMemo, useState } from "./dom.js";
import { bytes, count, figure, moment, shortName } from "./format.js";
import { JobActions, JobNow, jobName, lastWord } from "./job_summary.js";
import { isActive, isOver, jobs, readOlder, refresh } from "./jobs.js";
import { LogTail } from "./log_tail.js";
import { Action, Badge, Card, Elapsed, Empty, Facts, Listing, Refusal, Title } from "./parts.js";
import { link } from "./router.js";
import { useAnswer, useStore } from "./store.js";

const TABS = [["curves", "Curves"], ["configuration", "Configuration"], ["log", "Log"], ["records", "Records"]];
const NO_STEPS = [];
const CHECKPOINT_COLUMNS = [["Step", "number"], ["When"], ["Whole"], ["Size", "number"], ["Path", "wide"]];
const JOB_COLUMNS = [["Compare", "act head"], ["Job", "head keep"], ["What", "wide name"], ["State", "wide name"], ["Loss", "number"], ["Held out", "number"], ["When", "keep"]];

export function Job({ name, values }) {
  return name === null ? html`<${JobList} />` : html`<${OneJob} jobId=${name} tab=${values.get("tab")} />`;
}

function OneJob({ jobId, tab: asked }) {
  const job = useStore(jobs, (all) => all?.find((one) => one.job_id === jobId) ?? null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    if (job === null) refresh(jobId).then(() => setProblem(null), setProblem);
  }, [jobId, job === null]);
  if (job === null) return html`<${Title} name=${jobId} /><${Refusal} problem=${problem} />`;
  const tabs = job.kind === "training" ? TABS : TABS.slice(1); // only a training has curves
  const [tab] = tabs.find(([key]) => key === asked) ?? tabs[0];
  return html`
    <${Title} name=${jobId} actions=${html`<${JobActions} job=${job} />`}><bdi>${jobName(job)}</bdi><//>
    <p class="over"><${Badge} status=${job.status} /> ${jobId}
      ${job.rerun_of && html` · runs <a href=${link("jobs", job.rerun_of)}>${job.rerun_of}</a> again`}
      ${job.started_at && html` · ${moment(job.started_at)}, <${Elapsed} job=${job} />`}
    </p>
    ${job.error && html`<div class="refusal" role="alert"><strong>${job.error.kind.replaceAll("_", " ")}</strong><p><bdi>${job.error.message}</bdi></p></div>`}
    <${Card}><${JobNow} job=${job} /><${Made} job=${job} /><//>
    <nav class="tabs" aria-label="Parts of the job">
      ${tabs.map(([key, title]) => html`<a href=${link("jobs", jobId, { tab: key })} aria-current=${key === tab ? "page" : undefined}>${title}</a>`)}
    </nav>
    ${tab === "configuration" ? html`<${Configuration} job=${job} />`
      : tab === "log" ? html`<${Log} job=${job} />`
      : tab === "records" ? html`<${Records} jobId=${jobId} position=${job.position} />`
      : html`<${CurvesAndCheckpoints} job=${job} />`}`;
}

/** What a job on a trained model has to do with it, and where what it made lies. */
function Made({ job: { source_model_id: source, delivery } }) {
  if (source === null) return null;
  return html`<${Facts} of=${[
    ["Of the model", html`<a href=${link("models", source)}>model ${source}</a>`],
    ["Where", delivery && html`<bdi>${delivery.repo_id ?? delivery.path}</bdi>`],
    ["Size", delivery?.size_bytes ? bytes(delivery.size_bytes) : null],
  ]} />`;
}

function CurvesAndCheckpoints({ job }) {
  const { value } = useAnswer((signal) => get(path`/api/jobs/${job.job_id}/checkpoints`, signal), [job.job_id, job.checkpoint]);
  const checkpoints = value?.checkpoints ?? NO_STEPS;
  const steps = useMemo(() => checkpoints.map(({ step }) => step), [checkpoints]);
  if (job.attempt === 0) return html`<${Empty}>It has not begun yet.<//>`;
  return html`<${Card}><${CurvesPanel} jobId=${job.job_id} isOver=${isOver(job)} checkpoints=${steps} /><//>
    <${Card} title="Checkpoints">
      ${checkpoints.length ? html`<${Listing} columns=${CHECKPOINT_COLUMNS} rows=${checkpoints.map((one) => [one.step, [
        count(one.step), moment(one.created_at), one.valid ? "yes" : "no", bytes(one.size_mb * 1e6), html`<code>${one.path}</code>`,
      ]])} />` : html`<${Empty}>None yet: one is saved at the end, when it is stopped, and each save_steps.<//>`}
    <//>`;
}

const shown = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));

function Configuration({ job }) {
  const environment = job.environment;
  return html`
    <${Card} title="Data">
      <${Facts} of=${[
        ["Dataset", html`<a href=${link("datasets", job.dataset.filename)}><bdi>${job.dataset.filename}</bdi></a>`],
        ["Revision", job.dataset.revision], ["Records", count(job.dataset.num_examples)],
        ["SHA-256", html`<code>${job.dataset.sha256}</code>`], ["From", job.dataset.source],
        ["Left out", job.left_out_examples === null ? null : count(job.left_out_examples)],
        ["Cut", job.cut_examples === null ? null : count(job.cut_examples)],
      ]} />
    <//>
    <${Card} title="Model">
      <${Facts} of=${[
        ["Model", html`<bdi>${job.model_name}</bdi>`], ["Weights", job.base_revision], ["Provider", job.provider],
        ["Goes on from", job.lineage.length ? job.lineage.map((one) => shortName(one.name ?? String(one.model_id))).join(", ") : null],
      ]} />
    <//>
    <${Card} title="Parameters in effect">
      <dl class="parameters">${Object.entries(job.config).filter(([, value]) => value !== null).map(([name, value]) => html`<div><dt>${name}</dt><dd><bdi>${shown(value)}</bdi></dd></div>`)}</dl>
    <//>
    ${environment && html`<${Card} title="Environment">
      <${Facts} of=${[["Python", environment.python], ["Platform", environment.platform], ["Device", environment.device], ...Object.entries(environment.versions ?? {})]} />
    <//>`}`;
}

function Log({ job }) {
  const [attempt, setAttempt] = useState(null);
  return html`<${Card} title="Log" actions=${job.attempt > 1 && html`<label>Attempt <select value=${attempt ?? job.attempt} onChange=${(event) => setAttempt(Number(event.target.value))}>
      ${Array.from({ length: job.attempt }, (_, n) => html`<option value=${n + 1}>${n + 1}</option>`)}
    </select></label>`}>
    <${LogTail} jobId=${job.job_id} attempt=${attempt ?? (job.attempt || null)} goesOn=${isActive(job)} />
  <//>`;
}

function Records({ jobId, position }) {
  const [after, setAfter] = useState([0]);
  const { value, problem } = useAnswer(
    (signal) => get(query("/api/events", { stream: jobId, after: after.at(-1), limit: 100 }), signal),
    [jobId, after.at(-1), position],
  );
  return html`<${Card} title="Records">
    <${Refusal} problem=${problem} />
    <ul class="records">${(value?.events ?? NO_STEPS).map((record) => html`<li key=${record.position}>
      <details><summary><code>${record.position}</code> <strong>${record.type}</strong> <time>${moment(record.at)}</time></summary>
      <pre>${JSON.stringify(record.data, null, 2)}</pre></details>
    </li>`)}</ul>
    <div class="actions">
      <button type="button" disabled=${after.length < 2} onClick=${() => setAfter(after.slice(0, -1))}>Earlier</button>
      <button type="button" disabled=${!value?.has_more} onClick=${() => setAfter([...after, value.last_position])}>Later</button>
    </div>
  <//>`;
}

function JobList() {
  const all = useStore(jobs);
  const [more, setMore] = useState(true);
  const [chosen, setChosen] = useState([]);
  const choose = (jobId) => setChosen((now) => (now.includes(jobId) ? now.filter((one) => one !== jobId) : [...now, jobId]));
  return html`
    <${Title} name="All jobs" actions=${html`<a class="button" aria-disabled=${chosen.length < 2} href=${chosen.length < 2 ? undefined : link("compare", null, { jobs: chosen.join(",") })}>Compare ${chosen.length || ""}</a>`} />
    <${Listing} columns=${JOB_COLUMNS} rows=${(all ?? []).map((job) => [job.job_id, [
      html`<input type="checkbox" aria-label=${`Compare ${job.job_id}`} checked=${chosen.includes(job.job_id)} disabled=${job.kind !== "training"} onChange=${() => choose(job.job_id)} />`,
      html`<a href=${link("jobs", job.job_id)}>${job.job_id}</a>`,
      html`<bdi class="few">${jobName(job)}</bdi>`,
      html`<${Badge} status=${job.status} />${job.error && html` <bdi class="few soft">${lastWord(job)}</bdi>`}`,
      job.loss === null ? null : figure(job.loss), job.eval_loss === null ? null : figure(job.eval_loss),
      moment(job.finished_at ?? job.started_at ?? job.created_at),
    ]])} />
    ${all?.length === 0 && html`<${Empty}>None yet. <a href=${link("start")}>Start a training</a>.<//>`}
    ${more && all?.length >= 50 && html`<${Action} onClick=${async () => setMore(await readOlder())}>Older jobs<//>`}`;
}
