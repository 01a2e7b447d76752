// The figures of a job's steps, as /api/jobs/{job_id}/metrics has them: read once, and then grown by the live records.
import { get, path, query } from "./api.js";
import { MadeAgain } from "./made_again.js";

const PAGE = 20_000;
const AGAIN = 2000; // ms until a page is asked for once more
const FIGURES = [
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
  madeAgain = new MadeAgain();
  last = null;
  position = 0;
  #kept = new Map(); // attempt: the position of the last step of it that stands
  #counts = Object.fromEntries(FIGURES.map((name) => [name, 0]));
  #averages = new Map();
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

  /** Read what there is, then what came meanwhile. It goes on until it could be read; a job that is none is refused. */
  async load() {
    this.#ready = false;
    for (let hasMore = true; hasMore; ) hasMore = await this.#readPage();
    this.#ready = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const record of waiting) this.#apply(record);
    this.#changed();
    this.#readMadeAgain(this.position);
  }

  /** What stands is drawn without it. */
  async #readMadeAgain(upTo) {
    try {
      await this.madeAgain.read(this.jobId, upTo, this.#kept);
      if (this.madeAgain.attempts.length) this.#changed();
    } catch (problem) {
      if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) return; // refused again and again
      setTimeout(() => this.#readMadeAgain(upTo), AGAIN);
    }
  }

  /** Whether there is another page. */
  async #readPage() {
    let page;
    try {
      page = await get(query(path`/api/jobs/${this.jobId}/metrics`, { after: this.position, limit: PAGE }));
    } catch (problem) {
      if (problem.status === 404) throw problem;
      await new Promise((done) => setTimeout(done, AGAIN));
      return true;
    }
    for (const metric of page.metrics) {
      this.#add(metric);
      this.#kept.set(metric.attempt, metric.position);
    }
    for (const evaluation of page.evaluations) this.#addEvaluation(evaluation);
    this.position = Math.max(this.position, page.last_position);
    this.#changed();
    return page.has_more;
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
    if (kept < this.step.length) this.#cut(kept);
    this.evaluations = this.evaluations.filter((one) => one.step <= step || one.attempt >= attempt);
  }

  #cut(kept) {
    for (let at = kept; at < this.step.length; at += 1) this.madeAgain.add(this.attempt[at], this.#metricAt(at));
    for (const column of this.#all()) column.length = kept;
    for (const name of FIGURES) this.#counts[name] = this.columns[name].filter((value) => value !== null).length;
    this.#averages.clear();
  }

  #metricAt(at) {
    const [figures, rewards] = [this.columns, this.rewards].map((of) => Object.entries(of).map(([name, column]) => [name, column[at]]));
    return { step: this.step[at], ...Object.fromEntries(figures), rewards: Object.fromEntries(rewards) };
  }

  #add(metric) {
    if (!this.attempts.some(({ attempt }) => attempt === metric.attempt)) {
      this.#begin(metric.attempt, metric.step - 1);
    }
    this.step.push(metric.step);
    this.attempt.push(metric.attempt);
    for (const name of FIGURES) {
      const value = metric[name] ?? null;
      this.columns[name].push(value);
      if (value !== null) this.#counts[name] += 1;
    }
    for (const [name, value] of Object.entries(metric.rewards ?? {})) {
      this.rewards[name] ??= new Array(this.step.length - 1).fill(null);
      this.rewards[name].push(value);
    }
    for (const column of Object.values(this.rewards)) if (column.length < this.step.length) column.push(null);
    this.last = metric;
  }

  #addEvaluation(evaluation) {
    if (this.evaluations.at(-1)?.step >= evaluation.step) {
      this.evaluations = this.evaluations.filter((one) => one.step !== evaluation.step);
    }
    this.evaluations.push(evaluation);
  }

  /** Whether all that there was of the job has been read. */
  get isRead() {
    return this.#ready;
  }

  /** Whether there is any number in a column. */
  has(name) {
    return this.#counts[name] > 0;
  }

  /** A column and its moving average, which grows with it. */
  smoothed(name, weight) {
    const values = this.columns[name];
    if (!weight) return [values, values];
    const key = `${name} ${weight}`;
    if (!this.#averages.has(key)) this.#averages.set(key, new Average(weight));
    return [values, this.#averages.get(key).of(values)];
  }

  /** An evaluation's figure at its step, or at the next one that has figures. */
  evaluated(name) {
    const column = new Array(this.step.length).fill(null);
    for (const { step, metrics } of this.evaluations) {
      if (column.length) column[Math.min(firstFrom(this.step, step), column.length - 1)] = metrics[name] ?? null;
    }
    return column;
  }

  #all() {
    return [this.step, this.attempt, ...Object.values(this.columns), ...Object.values(this.rewards)];
  }

  #changed() {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** Where the first of ascending numbers is that is not less. */
function firstFrom(numbers, least) {
  let [from, to] = [0, numbers.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (numbers[middle] < least) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** The exponential moving average of a column that grows, unbiased at its beginning (Adam's correction). */
class Average {
  #values = [];
  #mean = 0;
  #correction = 1;

  constructor(weight) {
    this.weight = weight;
  }

  of(values) {
    for (let at = this.#values.length; at < values.length; at += 1) this.#values.push(this.#next(values[at]));
    return this.#values;
  }

  #next(value) {
    if (value === null) return null;
    this.#mean = this.weight * this.#mean + (1 - this.weight) * value;
    this.#correction *= this.weight;
    return this.#mean / (1 - this.#correction);
  }
}
