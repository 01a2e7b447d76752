// The jobs of this server, newest first, as the API tells them and the live records go on.
import { get, path, query } from "./api.js";
import { Curves } from "./curves.js";
import { Follower } from "./live.js";
import { Store } from "./store.js";

const LISTED = 50;
const GROWS = new Set(["MetricsLogged", "EvaluationLogged", "PhaseEntered"]);
const ACTIVE = new Set(["starting", "training", "stopping"]);

/** `null` until they are known. */
export const jobs = new Store(null);
/** The newest messages that ended a job, for whoever tells of it. */
export const ended = new Store(null);

const curves = new Map();
const follower = new Follower(reload);

export const isActive = (job) => ACTIVE.has(job.status);
export const isOver = (job) => ["completed", "stopped", "failed"].includes(job.status);
export const follow = () => follower.open();
export const subscribe = (listener) => follower.subscribe(listener);

/** A job's curves: read once, and kept as long as the page is open. */
export function curvesOf(jobId) {
  if (!curves.has(jobId)) {
    const made = new Curves(jobId);
    curves.set(jobId, made);
    made.load().catch(() => curves.delete(jobId));
  }
  return curves.get(jobId);
}

/** Read all jobs of the first page anew, and the curves that are shown. */
export async function reload() {
  const { jobs: found } = await get(query("/api/jobs", { limit: LISTED }));
  jobs.set(found);
  for (const jobId of [...curves.keys()]) {
    curves.delete(jobId);
    curvesOf(jobId);
  }
}

/** Further jobs, older than the last one; false if there are none. */
export async function readOlder() {
  const known = jobs.get() ?? [];
  const page = await get(query("/api/jobs", { limit: LISTED, after: known.at(-1)?.job_id }));
  jobs.set([...known, ...page.jobs]);
  return page.has_more;
}

/** One job, read anew. */
export async function refresh(jobId) {
  put(await get(path`/api/jobs/${jobId}`));
}

function put(job) {
  const known = jobs.get() ?? [];
  const at = known.findIndex((one) => one.job_id === job.job_id);
  if (at >= 0 && known[at].position > job.position) return;
  jobs.set(at < 0 ? [job, ...known] : known.with(at, job));
}

follower.subscribe(({ record, type, at, ...status }) => {
  if (jobs.get() === null) return;
  const known = jobs.get().find((one) => one.job_id === status.job_id);
  if (known && GROWS.has(type)) put({ ...known, ...status });
  else refresh(status.job_id).catch(() => {}); // the next message, or reload, has it
  curves.get(status.job_id)?.take(record);
  if (["TrainingCompleted", "TrainingFailed", "TrainingStopped"].includes(type)) ended.set(status);
});
