// How things stood at any position of the log, and what has changed since.
import { get, query } from "./api.js";
import { html, useEffect, useId, useState } from "./dom.js";
import { count, moment, share, shortName } from "./format.js";
import { Badge, Card, Empty, Facts, Refusal } from "./parts.js";

const SETTLED = 250; // ms without a move of the slider, before a past is folded from the log

export function AsItStood() {
  const [now, setNow] = useState(null);
  const [at, setAt] = useState(null);
  const [past, setPast] = useState(null);
  const [problem, setProblem] = useState(null);
  const slider = useId();
  useEffect(() => {
    get("/api/state").then((state) => { setNow(state); setAt(state.position); setPast(state); }, setProblem);
  }, []);
  useEffect(() => {
    if (at === null || at === past?.position) return undefined;
    const control = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const [state, { events }] = await Promise.all([
          get(query("/api/state", { at }), control.signal),
          get(query("/api/events", { after: Math.max(0, at - 1), limit: 1 }), control.signal),
        ]);
        setProblem(null);
        setPast({ ...state, record: at === 0 ? null : events[0] });
      } catch (refused) {
        if (!control.signal.aborted) setProblem(refused);
      }
    }, SETTLED);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [at]);
  const toNow = async () => {
    const state = await get("/api/state").catch(setProblem);
    if (state) { setNow(state); setPast(state); setAt(state.position); }
  };
  if (now === null) return html`<${Card} title="As it stood"><${Refusal} problem=${problem} /><//>`;
  const move = (to) => setAt(Math.min(now.position, Math.max(0, to)));
  return html`<${Card} title="As it stood" actions=${html`<button type="button" onClick=${toNow}>Now</button>`}>
    <div class="slider">
      <label for=${slider}>Position</label>
      <button type="button" aria-label="One record back" disabled=${at === 0} onClick=${() => move(at - 1)}>−</button>
      <input id=${slider} type="range" min="0" max=${now.position} step="1" value=${at} aria-valuetext=${`${count(at)} of ${count(now.position)}`}
        onInput=${(event) => move(Number(event.target.value))} />
      <button type="button" aria-label="One record on" disabled=${at === now.position} onClick=${() => move(at + 1)}>+</button>
      <output for=${slider}>${count(at)} of ${count(now.position)}</output>
    </div>
    <${Refusal} problem=${problem} />
    <div aria-live="polite" aria-busy=${past?.position !== at}>${past && html`<${State} state=${past} />`}</div>
    ${past && past.position !== now.position && html`<${Changes} before=${past} after=${now} />`}
  <//>`;
}

function State({ state }) {
  const { status, models, datasets, record } = state;
  return html`
    ${record && html`<p class="soft">${moment(record.at)}, after <strong>${record.type}</strong> of <bdi>${record.stream}</bdi></p>`}
    <p><${Badge} status=${status.status} /> ${status.job_id ?? "no job yet"}</p>
    <${Facts} of=${[
      ["Progress", status.progress === null ? null : share(status.progress / 100)],
      ["Models", count(models.length)],
      ["Datasets", count(datasets.length)],
    ]} />
    <details><summary>Models and datasets then</summary><div class="two">
      <${Names} title="Models" names=${models.map(({ id, name }) => [id, `${id}: ${shortName(name)}`])} />
      <${Names} title="Datasets" names=${datasets.map(({ filename, revision }) => [filename, `${filename}, revision ${revision}`])} />
    </div></details>`;
}

const Names = ({ title, names }) => html`<div><h3>${title}</h3>${names.length
  ? html`<ul>${names.map(([key, name]) => html`<li key=${key}><bdi>${name}</bdi></li>`)}</ul>`
  : html`<${Empty}>None.<//>`}</div>`;

/** What of one list is in no other, or is otherwise there. */
function differences(before, after, key, name, told) {
  const [old, fresh] = [before, after].map((all) => new Map(all.map((one) => [one[key], one])));
  return [
    ...after.filter((one) => !old.has(one[key])).map((one) => ["came", told, name(one)]),
    ...before.filter((one) => !fresh.has(one[key])).map((one) => ["went", told, name(one)]),
    ...after.filter((one) => old.has(one[key]) && JSON.stringify(old.get(one[key])) !== JSON.stringify(one))
      .map((one) => ["changed", told, name(one)]),
  ];
}

function Changes({ before, after }) {
  const found = [
    ...differences(before.models, after.models, "id", ({ id, name }) => `${id}: ${shortName(name)}`, "Model"),
    ...differences(before.datasets, after.datasets, "filename", ({ filename }) => filename, "Dataset"),
  ];
  const { status: was } = before;
  const { status: is } = after;
  if (was.job_id !== is.job_id || was.status !== is.status) {
    const [from, to] = [was, is].map(({ job_id: job, status }) => (job ? `${job} ${status}` : status));
    found.unshift(["changed", "Job", `${from}, now ${to}`]);
  }
  return html`<h3>What has changed since</h3>
    ${found.length
      ? html`<ul class="changes">${found.map(([how, what, name]) => html`<li><span class=${`change ${how}`}>${how}</span> ${what} <bdi>${name}</bdi></li>`)}</ul>`
      : html`<${Empty}>Nothing of the job that is shown, the models and the datasets.<//>`}`;
}
