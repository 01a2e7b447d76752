// Steps that an attempt made and a later one made again, from a checkpoint before them: drawn faint beside the curve.
import { get, query } from "./api.js";

const PAGE = 1000;
const SHOWN = 8; // attempts, the last ones

export class MadeAgain {
  #byAttempt = new Map(); // attempt: { step: its figures }

  /** The attempts that there is something of, in order. */
  get attempts() {
    return [...this.#byAttempt.keys()].sort((a, b) => a - b).slice(-SHOWN);
  }

  add(attempt, metric) {
    if (!this.#byAttempt.has(attempt)) this.#byAttempt.set(attempt, new Map());
    this.#byAttempt.get(attempt).set(metric.step, metric);
  }

  /**
   * Read those of a job, up to a position, from its records: its metrics have each step once, as it was made last.
   * `kept`: of each attempt the position of the last step that stands.
   */
  async read(jobId, upTo, kept) {
    const began = new Map();
    for await (const { position, data } of records(jobId, "TrainingStarted", 0, upTo)) {
      // One for each phase that trains: the first says where the attempt went on.
      if (!began.has(data.attempt)) began.set(data.attempt, { step: data.report.resumed_step ?? 0, position });
    }
    const starts = [...began].sort(([a], [b]) => a - b);
    for (const [at, [attempt, { position }]] of starts.slice(0, -1).entries()) {
      const later = starts.slice(at + 1).map(([, start]) => start);
      const last = Math.min(...later.map(({ step }) => step));
      for await (const { data } of records(jobId, "MetricsLogged", (kept.get(attempt) ?? position) - 1, later[0].position)) {
        for (const metric of data.steps) if (data.attempt === attempt && metric.step > last) this.add(attempt, metric);
      }
    }
  }

  /** Steps and columns, and a column more for each attempt; `of`: gives a step's figure. */
  beside([steps, ...columns], of) {
    const made = this.attempts.map((attempt) => [...this.#byAttempt.get(attempt).values()]);
    if (made.length === 0) return [steps, ...columns];
    const ahead = new Set(made.flat().map(({ step }) => step));
    for (const step of steps) ahead.delete(step); // made again already
    const all = ahead.size ? [...steps, ...ahead].sort((a, b) => a - b) : steps;
    const places = new Map(all.map((step, at) => [step, at]));
    const spread = (values, stepOf) => {
      const wide = new Array(all.length).fill(null);
      values.forEach((value, at) => { wide[places.get(stepOf(at))] = value; });
      return wide;
    };
    const beside = ahead.size ? columns.map((column) => spread(column, (at) => steps[at])) : columns;
    return [all, ...beside, ...made.map((metrics) => spread(metrics.map(of), (at) => metrics[at].step))];
  }
}

/** A job's records of a type after a position, up to another one. */
async function* records(jobId, type, after, upTo) {
  for (let [from, more] = [after, after < upTo]; more; ) {
    const page = await get(query("/api/events", { stream: jobId, type, after: from, limit: PAGE }));
    yield* page.events.filter(({ position }) => position <= upTo);
    from = page.last_position;
    more = page.has_more && from < upTo;
  }
}
