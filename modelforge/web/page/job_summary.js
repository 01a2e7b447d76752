// What a job is, in words, and what can be done with it.
import { path, post } from "./api.js";
import { html, useEffect, useState } from "./dom.js";
import { STRATEGIES, bytes, count, duration, figure, shortName } from "./format.js";
import { curvesOf, isActive, isOver, refresh } from "./jobs.js";
import { Action, Badge, Facts, Progress } from "./parts.js";
import { go, link } from "./router.js";

const WORK = { training: "", merge: "Merge", export: "Export", push: "Push", evaluation: "Evaluation" };
const PHASES = {
  loading_model: "Loading the model", preparing_data: "Preparing the data", evaluating_base: "Judging the untrained model",
  training_reward_model: "Training the reward model", merging_reward_model: "Merging the reward model",
  training: "Training", evaluating: "Evaluating", saving: "Saving", merging: "Merging", exporting: "Exporting",
  pushing: "Pushing",
};

const phaseName = (phase) => PHASES[phase] ?? phase?.replaceAll("_", " ") ?? null;

/** What a job does, as a name that a person would give it. */
export function jobName(job) {
  const work = WORK[job.kind] ?? job.kind;
  if (work) return `${work} of model ${job.source_model_id}`;
  return `${STRATEGIES[job.strategy] ?? job.strategy} of ${shortName(job.model_name)} on ${job.dataset.filename}`;
}

const UNITS = { layers: "Layers", bytes: "Done" };

/** How far it is, `[what is counted, how many of how many]`: an export counts bytes. */
function howFar({ unit, current_step: now, total_steps: all }) {
  const write = unit === "bytes" ? bytes : count;
  return [UNITS[unit] ?? "Step", all ? `${write(now)} of ${write(all)}` : null];
}

/** How it ended or why it waits, in a line. */
export function lastWord(job) {
  if (job.error) return job.error.message;
  if (job.status === "queued" && job.queue_position) return `number ${count(job.queue_position)} in the queue`;
  if (job.status === "queued") return job.waiting_for ? `waits for a start: ${job.waiting_for}` : "";
  if (job.status === "completed") {
    return job.kind === "training" ? `loss ${figure(job.loss)} after ${count(job.current_step)} steps` : "";
  }
  if (job.status === "stopped") return job.current_step ? `${howFar(job)[0] === "Step" ? "at step " : ""}${howFar(job)[1]}` : "";
  return isActive(job) ? (phaseName(job.phase) ?? "") : "";
}

/** The last step's figures; what comes after they are read once comes with the job. */
function useLast(curves) {
  const [, redraw] = useState(0);
  useEffect(() => {
    if (curves.last) {
      redraw((n) => n + 1); // they came before this
      return undefined;
    }
    const stop = curves.subscribe(() => {
      stop();
      redraw((n) => n + 1);
    });
    return stop;
  }, [curves]);
  return curves.last;
}

/** Progress, and the figures of now. */
export function JobNow({ job }) {
  const last = useLast(curvesOf(job.job_id));
  return html`
    ${!isOver(job) && html`<div class="progress-row">
      <${Progress} value=${job.progress} label=${`Progress of ${job.job_id}`} />
      <output>${job.progress === null ? "" : `${Math.floor(job.progress)} %`}</output>
    </div>`}
    ${job.stalled && html`<p class="warning" role="status">The trainer has said nothing for a while. It is not ended for that: its log may say why.</p>`}
    <${Facts} of=${[
      howFar(job),
      ["Epoch", job.current_epoch ? `${count(job.current_epoch)} of ${count(job.total_epochs)}` : null],
      ["Time left", isActive(job) && job.eta_seconds !== null ? duration(job.eta_seconds) : null],
      ["Phase", isActive(job) ? (phaseName(job.phase) ?? "Starting the trainer") : null],
      ["Loss", job.loss === null ? null : figure(job.loss)],
      ["Held-out loss", job.eval_loss === null ? null : figure(job.eval_loss)],
      ["Reward", job.reward === null ? null : figure(job.reward)],
      ["KL", job.kl === null ? null : figure(job.kl)],
      ["Tokens a second", last?.tokens_per_second ? count(Math.round(last.tokens_per_second)) : null],
      ["Memory", last?.memory_mb ? `${count(Math.round(last.memory_mb))} MB` : null],
      ["GPU memory", last?.gpu_memory_mb ? `${count(Math.round(last.gpu_memory_mb))} MB` : null],
      ["GPU", job.gpus.length ? job.gpus.join(", ") : null],
    ]} />`;
}

/** What can be done with it now. */
export function JobActions({ job }) {
  const act = (what, body) => async () => {
    const answer = await post(path`/api/jobs/${job.job_id}/${what}`, body);
    if (what === "rerun") go("jobs", answer.job_id);
    else await refresh(job.job_id);
  };
  const ends = job.status === "queued" || job.status === "starting" || job.status === "training";
  return html`
    ${job.status === "training" && job.kind === "training" && html`<${Action} onClick=${act("checkpoint")}>Save a checkpoint<//>`}
    ${ends && html`<${Action} kind="danger" confirm=${job.status === "queued" ? "Take it out of the queue?" : "End it with a checkpoint?"} onClick=${act("stop")}>Stop<//>`}
    ${(job.status === "stopped" || job.status === "failed") && html`<${Action} kind="primary" onClick=${act("resume")}>Resume<//>`}
    ${isOver(job) && job.kind === "training" && html`<${Action} onClick=${act("rerun", { queue: true })}>Run again<//>
      <a class="button" href=${link("start", null, { from: job.job_id })}>Run again with changes</a>`}
    ${job.model_id && html`<a class="button primary" href=${link("playground", null, { model: job.model_id })}>Try the model</a>`}`;
}

export const JobLine = ({ job }) => html`<li class="job-line">
  <${Badge} status=${job.status} />
  <a href=${link("jobs", job.job_id)}><bdi>${jobName(job)}</bdi></a>
  <span class="soft">${job.job_id}</span>
  <span class=${job.error ? "error-word" : "soft"}><bdi class="few">${lastWord(job)}</bdi></span>
</li>`;
