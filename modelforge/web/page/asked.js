// The body of a training as a form makes it: what was chosen, and nothing that was left alone.
import { get, path, query } from "./api.js";
import { BUILT_IN } from "./first_steps.js";

export const FRESH = { task: null, model_name: BUILT_IN, dataset: null, strategy: "sft" };
const OF_A_JOB = ["task", "strategy", "provider"];

/** Whether enough is said to ask the server of it. */
export const isWhole = ({ task, model_name: model, dataset }) =>
  Boolean(task && model && dataset) && [dataset].flat().every((one) => typeof one === "string" || one.dataset);

/** The JSON of the request. */
export const bodyOf = (asked) => Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== null && value !== undefined));

/** The same with a setting changed; null or undefined: it is left alone. */
export function changed(asked, settings) {
  const next = { ...asked, ...settings };
  for (const [name, value] of Object.entries(settings)) {
    if ((value === undefined || value === null) && !(name in FRESH)) delete next[name];
  }
  return next;
}

/** A dataset as a request names it: an upload by its name, and what is nowhere else by its place. */
function named(dataset) {
  if (dataset.source) return dataset.source.startsWith("hf://") ? dataset.source : dataset.filename;
  return dataset.origin ?? (dataset.revision === null ? dataset.path : dataset.filename);
}

/** How it was asked to be read. */
function readAs({ columns, encoding }) {
  return { ...(columns === null ? {} : { columns }), ...(encoding === null ? {} : { encoding }) };
}

/**
 * What a job was asked for, to be changed and asked again: with the parameters that were named then, not those that its
 * trainer chose, which another strategy or model would have chosen otherwise. `schema`: the fields of a body.
 */
export async function askedOf(jobId, schema, signal) {
  const job = await get(path`/api/jobs/${jobId}`, signal);
  if (job.rerun_of) return askedOf(job.rerun_of, schema, signal); // a rerun names all that was in effect
  const asked = { ...FRESH, model_name: job.lineage.length ? String(job.lineage[0].model_id) : job.model_name };
  for (const name of OF_A_JOB) if (name in FRESH || job[name] !== schema[name]?.default) asked[name] = job[name];
  const { parts } = job.dataset;
  asked.dataset = parts.length
    ? parts.map(({ dataset, weight, max_samples: most }) => ({ dataset: named(dataset), weight, ...(most === null ? {} : { max_samples: most }), ...readAs(dataset) }))
    : named(job.dataset);
  if (!parts.length) Object.assign(asked, readAs(job.dataset));
  if (job.validation_dataset) asked.validation_dataset = named(job.validation_dataset);
  if (job.max_restarts) asked.max_restarts = job.max_restarts;
  if (Object.keys(job.metadata ?? {}).length) asked.metadata = job.metadata;
  const request = await requestOf(jobId, signal);
  if (request && !/^my-.*-finetuned$/.test(request.output_name)) asked.output_name = request.output_name;
  for (const [name, value] of Object.entries(request?.parameters ?? job.config)) {
    if (name in schema && value !== null && JSON.stringify(value) !== JSON.stringify(schema[name].default)) asked[name] = value;
  }
  return asked;
}

async function requestOf(jobId, signal) {
  const { events } = await get(query("/api/events", { stream: jobId, type: "TrainingRequested", limit: 1 }), signal);
  return events[0]?.data.spec ?? null;
}
