// The figures of a job's steps, as /api/jobs/{job_id}/metrics has them: read once, and then grown by the live records.
import { get, path, query } from "./api.js";

const PAGE = 20_000;
export const FIGURES = [
  "loss", "learning_rate", "grad_norm", "tokens_per_second", "reward", "kl", "completion_length",
  "reward_accuracy", "reward_margin", "memory_mb", "gpu_memory_mb", "epoch", "elapsed_seconds",
];

/** Columns of one length: `step`, `attempt` and the figures; and the evaluations beside them. */
export class Curves {
  step = [];
  attempt = [];
  columns = Object.fromEntries(FIGURES.map((name) => [name, []]));
  rewards = {};
  evaluations = [];
  attempts = []; // [{ attempt, step }]: where each began
  last = null;
  position = 0;
  version = 0;
  #waiting = [];
  #ready = false;
  #listeners = new Set();

  constructor(jobId) {
    this.jobId = jobId;
  }

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Read what there is, then what came meanwhile. */
  async load() {
    this.#ready = false;
    let page;
    do {
      page = await get(query(path`/api/jobs/${this.jobId}/metrics`, { after: this.position, limit: PAGE }));
      for (const metric of page.metrics) this.#add(metric);
      for (const evaluation of page.evaluations) this.#addEvaluation(evaluation);
      this.position = Math.max(this.position, page.last_position);
      this.#changed();
    } while (page.has_more);
    this.#ready = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const record of waiting) this.#apply(record);
    this.#changed();
  }

  /** A record of the job, as it comes. */
  take(record) {
    if (!this.#ready) {
      this.#waiting.push(record);
      return;
    }
    if (this.#apply(record)) this.#changed();
  }

  #apply({ position, type, data }) {
    if (position <= this.position) return false;
    this.position = position;
    if (type === "MetricsLogged") {
      for (const step of data.steps) this.#add({ ...step, attempt: data.attempt });
      return true;
    }
    if (type === "EvaluationLogged") {
      this.#addEvaluation({ ...data.report, attempt: data.attempt });
      return true;
    }
    if (type === "TrainingStarted" && !this.attempts.some(({ attempt }) => attempt === data.attempt)) {
      this.#begin(data.attempt, data.report.resumed_step ?? 0);
      return true;
    }
    return false;
  }

  /** An attempt goes on after a step: what an earlier one made after it is made again. */
  #begin(attempt, step) {
    this.attempts.push({ attempt, step });
    let kept = this.step.length;
    while (kept > 0 && this.step[kept - 1] > step && this.attempt[kept - 1] < attempt) kept -= 1;
    for (const column of this.#all()) column.length = kept;
    this.evaluations = this.evaluations.filter((one) => one.step <= step || one.attempt >= attempt);
  }

  #add(metric) {
    if (!this.attempts.some(({ attempt }) => attempt === metric.attempt)) {
      this.#begin(metric.attempt, metric.step - 1);
    }
    this.step.push(metric.step);
    this.attempt.push(metric.attempt);
    for (const name of FIGURES) this.columns[name].push(metric[name] ?? null);
    for (const [name, value] of Object.entries(metric.rewards ?? {})) {
      this.rewards[name] ??= new Array(this.step.length - 1).fill(null);
      this.rewards[name].push(value);
    }
    for (const column of Object.values(this.rewards)) if (column.length < this.step.length) column.push(null);
    this.last = metric;
  }

  #addEvaluation(evaluation) {
    this.evaluations = this.evaluations.filter((one) => one.step !== evaluation.step);
    this.evaluations.push(evaluation);
  }

  /** Whether there is any number in a column. */
  has(name) {
    return this.columns[name].some((value) => value !== null);
  }

  /** An evaluation's figure at the steps that have one. */
  evaluated(name) {
    const at = new Map(this.evaluations.map((one) => [one.step, one.metrics[name] ?? null]));
    return this.step.map((step) => at.get(step) ?? null);
  }

  #all() {
    return [this.step, this.attempt, ...Object.values(this.columns), ...Object.values(this.rewards)];
  }

  #changed() {
    this.version += 1;
    for (const listener of [...this.#listeners]) listener();
  }
}

/** The exponential moving average of a column, unbiased at its beginning (Adam's correction). */
export function smooth(values, weight) {
  if (!weight) return values;
  let [mean, correction] = [0, 1];
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    correction *= weight;
    return mean / (1 - correction);
  });
}
