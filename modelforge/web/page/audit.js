// The log: what happened as a time line, how things stood at any of its positions, and whether it is what was written.
import { get, query } from "./api.js";
import { html, useEffect, useId, useRef, useState } from "./dom.js";
import { count, moment, time } from "./format.js";
import { AsItStood } from "./as_it_stood.js";
import { logs } from "./jobs.js";
import { subscribeRecords } from "./log_records.js";
import { Action, Card, Copy, Empty, Facts, Field, Refusal, Title } from "./parts.js";
import { go, link } from "./router.js";
import { useStore } from "./store.js";

const PAGE = 50;
const KEPT = 1000; // records that are shown at once; older ones are read when they are asked for
const SHOW_EVERY = 250; // ms
const LOOK_BACK = 100; // how many positions are read at a time, where a filter leaves few of them
const TYPES = [
  "StartTraining", "StopTraining", "ResumeTraining", "TrainingRequested", "AttemptLaunching", "TrainingStarted",
  "PhaseEntered", "MetricsLogged", "EvaluationLogged", "CheckpointSaved", "StopRequested", "AttemptExited", "AttemptFailed",
  "TrainingCompleted", "TrainingStopped", "TrainingFailed", "ModelRegistered", "ModelDeleted", "DatasetUploaded",
  "DatasetDeleted", "TokenCreated", "TokenRevoked", "WebhookCreated", "WebhookServed",
];

export function Audit({ name, values }) {
  const position = name === null ? null : Number(name);
  const filter = { type: values.get("type") ?? "", stream: values.get("stream") ?? "" };
  const log = useStore(logs);
  return html`
    <${Title} name="Audit" />
    <p class="lead">All that was asked and all that happened, in one log, each record chained to the one before it.</p>
    <${Verify} />
    <${AsItStood} key=${`state ${log}`} />
    ${position !== null && html`<${OneRecord} key=${`record ${log} ${position}`} position=${position} />`}
    <${TimeLine} key=${`lines ${log} ${filter.type} ${filter.stream}`} filter=${filter} />`;
}

function Verify() {
  const [found, setFound] = useState(null);
  return html`<${Card} title="Is it what was written?" actions=${html`<${Action} kind="primary" onClick=${async () => setFound(await get("/api/verify"))}>Verify<//>`}>
    <p class="soft">Every record is read again and compared with its digest; <code>modelforge verify</code> does the same without the server.</p>
    <div role="status">${found && html`
      <p class=${found.fault_count ? "warning" : "well"}>${found.fault_count
        ? html`<strong>${count(found.fault_count)} of ${count(found.records)} records are not what was written.</strong> ${found.faults[0].position !== null && html`The first that does not fit is <a href=${link("audit", String(found.faults[0].position))}>${found.faults[0].position}</a>.`}`
        : html`<strong>All ${count(found.records)} records are what was written.</strong>${found.snapshot !== null && html` The snapshot at ${count(found.snapshot)} is what they lead to.`}`}</p>
      ${found.away.map(({ file, first, last }) => html`<p class="warning">${count(first)} to ${count(last)} were not looked at: <code>${file}</code> is not here.</p>`)}
      ${found.fault_count > 0 && html`<ul>${found.faults.slice(0, 10).map((fault) => html`<li>${fault.position !== null && html`<strong>${fault.position}</strong>: `}${fault.what}</li>`)}</ul>`}
      <p class="digest"><span class="soft">Digest of the last record</span> <code>${found.digest}</code> <${Copy} text=${found.digest} /></p>
      <p class="soft">Keep it elsewhere: a log that was written anew as a whole has another.</p>`}</div>
  <//>`;
}

/** Records before a position, newest first, which pass a filter. `end`: where to go on; 0 once there are none. */
async function readBefore(before, filter, signal) {
  let [end, found, width] = [before, [], LOOK_BACK];
  while (end > 0 && found.length < PAGE) {
    const begin = Math.max(0, end - width);
    const page = await get(query("/api/events", { after: begin, limit: Math.min(10_000, end - begin), ...filter }), signal);
    found.push(...page.events.filter(({ position }) => position <= end).reverse());
    [end, width] = [begin, Math.min(10_000, width * 4)];
  }
  return { found, end };
}

const passes = (record, { type, stream }) => (!type || record.type === type) && (!stream || record.stream === stream);

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/** Records that come, at most four times a second; while `live` is off they wait. */
function useFresh(live, take) {
  const [count, setCount] = useState(0);
  const fresh = useRef([]);
  const show = () => {
    take(fresh.current.splice(0).reverse());
    setCount(0);
  };
  useEffect(() => {
    const timer = setInterval(() => {
      if (live && fresh.current.length) show();
      else setCount(fresh.current.length);
    }, SHOW_EVERY);
    return () => clearInterval(timer);
  }, [live]);
  return { count, show, add: (record) => fresh.current.push(record), forget: () => fresh.current.splice(0) };
}

function TimeLine({ filter }) {
  const [records, setRecords] = useState([]);
  const [end, setEnd] = useState(null);
  const [problem, setProblem] = useState(null);
  const [live, setLive] = useState(!stillness.matches);
  const fresh = useFresh(live, (come) => setRecords((now) => [...come, ...now].slice(0, KEPT)));
  const readOlder = async (from, signal) => {
    const { found, end: next } = await readBefore(from, filter, signal);
    setRecords((now) => [...now, ...found]);
    setEnd(next);
  };
  useEffect(() => {
    const control = new AbortController();
    let leave = () => {};
    const fail = (refused) => control.signal.aborted || setProblem(refused);
    const begin = async () => {
      leave();
      const { position } = await get("/api/info", control.signal);
      fresh.forget();
      setRecords([]);
      await readOlder(position, control.signal);
      if (control.signal.aborted) return;
      leave = subscribeRecords(position, (record) => passes(record, filter) && fresh.add(record), () => begin().catch(fail));
    };
    begin().catch(fail);
    return () => {
      control.abort();
      leave();
    };
  }, []);
  return html`<${Card} title="Time line" actions=${html`
      ${fresh.count > 0 && html`<button type="button" onClick=${fresh.show}>Show ${count(fresh.count)} new</button>`}
      <label><input type="checkbox" checked=${live} onChange=${(event) => setLive(event.target.checked)} /> Show what comes</label>`}>
    <${Filter} filter=${filter} />
    <${Refusal} problem=${problem} />
    <ol class="records" aria-label="Records, newest first">${records.map((record) => html`<${RecordLine} key=${record.position} record=${record} onOpen=${() => setLive(false)} />`)}</ol>
    ${end === 0 && records.length === 0 && html`<${Empty}>No record is of this kind.<//>`}
    ${end > 0 && html`<${Action} onClick=${() => readOlder(end)}>Older records<//>`}
  <//>`;
}

function Filter({ filter }) {
  const [type, stream] = [useId(), useId()];
  const to = (changed) => {
    const wanted = Object.entries({ ...filter, ...changed }).filter(([, value]) => value);
    go("audit", null, Object.fromEntries(wanted));
  };
  return html`<form class="filter" onSubmit=${(event) => { event.preventDefault(); to({ stream: event.target.stream.value.trim() }); }}>
    <${Field} label="Type" id=${type}><select id=${type} value=${filter.type} onChange=${(event) => to({ type: event.target.value })}>
      <option value="">All</option>
      ${filter.type && !TYPES.includes(filter.type) && html`<option value=${filter.type}>${filter.type}</option>`}
      ${TYPES.map((one) => html`<option value=${one}>${one}</option>`)}
    </select><//>
    <${Field} label="Job or stream" id=${stream}><input id=${stream} name="stream" defaultValue=${filter.stream} placeholder="train_000003" autocomplete="off" spellcheck=${false} /><//>
    <button type="submit">Show</button>
    ${(filter.type || filter.stream) && html`<a class="button" href=${link("audit")}>All records</a>`}
  </form>`;
}

/** A record, which opens to all that it says. */
function RecordLine({ record, onOpen }) {
  const [open, setOpen] = useState(false);
  return html`<li class=${record.kind}>
    <details onToggle=${(event) => {
      setOpen(event.target.open);
      if (event.target.open) onOpen(); // what is read stays where it is
    }}>
      <summary><code>${record.position}</code> <strong>${record.type}</strong> <span class="soft"><bdi>${record.stream}</bdi></span> <time>${moment(record.at)}</time></summary>
      ${open && html`<${RecordDetails} record=${record} />`}
    </details>
  </li>`;
}

function RecordDetails({ record }) {
  return html`<${Facts} of=${[
      ["What it is", record.kind === "command" ? "a command: somebody asked for it" : "an event: it happened"],
      ["By", html`<bdi>${record.actor}</bdi>`],
      ["Cause", record.cause === null ? "none: nothing before it led to it" : html`<a href=${link("audit", String(record.cause))}>record ${record.cause}</a>`],
      ["When", `${moment(record.at)}, ${time(record.at)}`],
      ["Stream", html`<a href=${link("audit", null, { stream: record.stream })}><bdi>${record.stream}</bdi></a>, number ${count(record.version)}`],
    ]} />
    <p class="digest"><span class="soft">Digest</span> <code>${record.digest}</code></p>
    <pre tabindex="0" role="region" aria-label=${`What record ${record.position} says`}>${JSON.stringify(record.data, null, 2)}</pre>`;
}

/** One record by its position, as a link to a cause leads to it. */
function OneRecord({ position }) {
  const [record, setRecord] = useState(null);
  const [problem, setProblem] = useState(null);
  const place = useRef(null);
  useEffect(() => {
    if (!Number.isSafeInteger(position) || position < 1) return;
    get(query("/api/events", { after: position - 1, limit: 1 })).then(({ events }) => setRecord(events[0] ?? false), setProblem);
  }, [position]);
  useEffect(() => place.current?.scrollIntoView({ block: "nearest" }), [record]);
  return html`<div ref=${place}><${Card} title=${record ? `Record ${position}: ${record.type}` : `Record ${position}`} actions=${html`<a class="button" href=${link("audit")}>Close</a>`}>
    <${Refusal} problem=${problem} />
    ${record === false && html`<${Empty}>The log has no such record.<//>`}
    ${record && html`<${RecordDetails} record=${record} />`}
  <//></div>`;
}
