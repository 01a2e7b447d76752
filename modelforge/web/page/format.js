// Numbers, moments and sizes, in the reader's own way of writing them.
const counts = new Intl.NumberFormat();
const figures = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 4 });
const small = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3, notation: "scientific" });
const shares = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const times = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const NOTHING = "–";

/** How many. */
export const count = (value) => (value === null || value === undefined ? NOTHING : counts.format(value));

/** A measured figure. */
export function figure(value) {
  if (value === null || value === undefined) return NOTHING;
  return value !== 0 && Math.abs(value) < 1e-3 ? small.format(value) : figures.format(value);
}

/** A share of 1. */
export const share = (value) => (value === null || value === undefined ? NOTHING : shares.format(value));

/** A moment, from ISO 8601 or unix microseconds. */
export const moment = (value) => (value ? moments.format(date(value)) : NOTHING);

export const time = (value) => (value ? times.format(date(value)) : NOTHING);

const date = (value) => new Date(typeof value === "number" ? value / 1000 : value);

const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** How long ago. */
export function since(value, now = Date.now()) {
  if (!value) return NOTHING;
  const seconds = (date(value) - now) / 1000;
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? UNITS.at(-1);
  return ago.format(Math.round(seconds / size), unit);
}

/** Seconds, as 3 h 5 min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NOTHING;
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return whole >= 600 ? `${minutes} min` : `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

/** Seconds in which a job's attempts ran, without the pauses between them; null where none was launched. */
export function ranSeconds(job, now = Date.now()) {
  if (!job.attempt_started_at) return null;
  const end = job.finished_at ? Date.parse(job.finished_at) : now;
  return job.ran_seconds + Math.max(0, end - Date.parse(job.attempt_started_at)) / 1000;
}

/** Bytes, by powers of 1000. */
export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  const power = value >= 1 ? Math.min(4, Math.floor(Math.log10(value) / 3)) : 0;
  return `${figures.format(value / 1000 ** power)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

/** The last part of a path, and a hub's name whole. */
export const shortName = (name) => (name?.startsWith("/") ? name.slice(name.lastIndexOf("/") + 1) : (name ?? NOTHING));

export const STRATEGIES = { sft: "SFT", qlora: "QLoRA", rlhf: "RLHF", dpo: "DPO" };
export const TASKS = {
  "text-generation": "Text generation",
  summarization: "Summarization",
  "extractive-question-answering": "Question answering",
};
