// The jobs of this server, newest first, as the API tells them and the live records go on.
import { get, path, query } from "./api.js";
import { Curves } from "./curves.js";
import { Follower } from "./live.js";
import { Store } from "./store.js";

const LISTED = 50;
const AGAIN = 2000;
const GROWS = new Set(["MetricsLogged", "EvaluationLogged", "PhaseEntered"]);
const MOVES_QUEUE = new Set(["AttemptLaunching", "TrainingStopped", "TrainingFailed"]);
const ENDS = new Set(["TrainingCompleted", "TrainingFailed", "TrainingStopped"]);
const ACTIVE = new Set(["starting", "training", "stopping"]);

/** `null` until they are known. */
export const jobs = new Store(null);
/** The newest messages that ended a job, for whoever tells of it. */
export const ended = new Store(null);
/** How many other logs the server has had since the page was opened: what was read of one says nothing of the next. */
export const logs = new Store(0);

const curves = new Map();
const heard = new Map(); // the last position that was told of each job, since the last beginning
const wanted = new Map(); // jobs that are read now; true: and once more, for something came meanwhile
let oldest = null; // the last job of the pages that were read
let beginning = 0;
const follower = new Follower(begin);

export const isActive = (job) => ACTIVE.has(job.status);
export const isOver = (job) => ["completed", "stopped", "failed"].includes(job.status);
export const follow = () => follower.open();
export const subscribe = (listener) => follower.subscribe(listener);

/** A job's curves: read once, and kept as long as the page is open. */
export function curvesOf(jobId) {
  if (!curves.has(jobId)) {
    const made = new Curves(jobId);
    curves.set(jobId, made);
    made.load().catch(() => curves.get(jobId) === made && curves.delete(jobId)); // there is no such job
  }
  return curves.get(jobId);
}

/** Nothing that is known can be gone on from: it may be of another log. */
async function begin() {
  const mine = ++beginning;
  logs.set(beginning - 1);
  heard.clear();
  const before = [...curves.keys()];
  curves.clear();
  for (;;) {
    try {
      const { jobs: found } = await get(query("/api/jobs", { limit: LISTED }));
      if (mine !== beginning) return;
      oldest = found.at(-1)?.job_id ?? null;
      jobs.set(found);
      break;
    } catch (problem) {
      if (mine !== beginning || problem.status === 401) return; // whoever signs in begins anew
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }
  const known = new Map(jobs.get().map((job) => [job.job_id, job.position]));
  // What was told while the answer was on its way may be newer than it.
  for (const [jobId, position] of heard) if (!(known.get(jobId) >= position)) freshen(jobId);
  for (const jobId of before) if (known.has(jobId)) curvesOf(jobId);
}

/** Further jobs, older than the last one; false if there are none. */
export async function readOlder() {
  const page = await get(query("/api/jobs", { limit: LISTED, after: oldest }));
  oldest = page.jobs.at(-1)?.job_id ?? oldest;
  for (const job of page.jobs) put(job);
  return page.has_more;
}

/** One job, read anew. */
export async function refresh(jobId) {
  const mine = beginning;
  const job = await get(path`/api/jobs/${jobId}`);
  if (mine === beginning) put(job);
}

/** The same, until it was possible; what comes meanwhile is read once more, and not all at once. */
async function freshen(jobId) {
  if (wanted.has(jobId)) {
    wanted.set(jobId, true);
    return;
  }
  do {
    wanted.set(jobId, false);
    try {
      await refresh(jobId);
    } catch (problem) {
      if (problem.status === 404 || problem.status === 401) break;
      wanted.set(jobId, true);
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  } while (wanted.get(jobId));
  wanted.delete(jobId);
}

const number = (jobId) => Number(jobId.slice(jobId.lastIndexOf("_") + 1));

function put(job) {
  const known = jobs.get() ?? [];
  const at = known.findIndex((one) => one.job_id === job.job_id);
  if (at >= 0) {
    if (known[at].position <= job.position) jobs.set(known.with(at, job));
    return;
  }
  const before = known.findIndex((one) => number(one.job_id) < number(job.job_id));
  jobs.set(known.toSpliced(before < 0 ? known.length : before, 0, job));
}

follower.subscribe(({ record, type, at, ...status }) => {
  const jobId = status.job_id;
  heard.set(jobId, status.position);
  curves.get(jobId)?.take(record);
  if (ENDS.has(type)) ended.set(status);
  if (jobs.get() === null) return; // what is read now is compared with what was heard
  const known = jobs.get().find((one) => one.job_id === jobId);
  if (known && GROWS.has(type)) put({ ...known, ...status });
  else freshen(jobId);
  if (!MOVES_QUEUE.has(type)) return;
  for (const job of jobs.get()) if (job.status === "queued" && job.job_id !== jobId) freshen(job.job_id);
});
