// A training is asked for: data, model, strategy and parameters on one page, and beside it what it takes.
import { get, post } from "./api.js";
import { AsCode } from "./as_code.js";
import { FRESH, askedOf, bodyOf, changed, isWhole } from "./asked.js";
import { html, useCallback, useEffect, useMemo, useState } from "./dom.js";
import { isActive, jobs } from "./jobs.js";
import { Parameters, idOf } from "./parameters.js";
import { Action, Card, Empty, Refusal, Title } from "./parts.js";
import { PreflightPanel, Problems, problemsByField, usePreflight } from "./preflight_panel.js";
import { go } from "./router.js";
import { DataSection } from "./start_data.js";
import { ModelSection, StrategySection } from "./start_sections.js";
import { useAnswer, useStore } from "./store.js";

/** What may be sent, field by field: read once from the server's own description. */
const readSchema = async (signal) => (await get("/api/openapi.json", signal)).components.schemas.StartTrainingBody.properties;

export function Start({ values }) {
  const from = values.get("from");
  const begun = useAnswer(async (signal) => {
    const schema = await readSchema(signal);
    const asked = from ? await askedOf(from, schema, signal) : changed(FRESH, { dataset: values.get("dataset"), ...(values.get("model") ? { model_name: values.get("model") } : {}) });
    return { schema, asked };
  }, [values.toString()]);
  const name = from ? `Run ${from} again` : "New training";
  return html`<${Title} name=${name} />
    <${Refusal} problem=${begun.problem} />
    ${begun.value === null ? !begun.problem && html`<${Empty}>Reading what can be set …<//>`
      : html`<${StartForm} key=${values.toString()} schema=${begun.value.schema} begun=${begun.value.asked} />`}`;
}

/** What the server knows of the dataset that is asked for, the first of several; null where it is none of its own. */
function useDetails(asked) {
  const dataset = Array.isArray(asked) ? asked[0].dataset : asked;
  const list = useAnswer((signal) => get("/api/datasets", signal), []);
  const there = list.value?.datasets ?? null;
  const isOurs = typeof dataset === "string" && there?.some((one) => one.filename === dataset);
  const details = useAnswer(async (signal) => (isOurs ? get(`/api/datasets/${encodeURIComponent(dataset)}`, signal) : null), [dataset, isOurs]);
  return { there, again: list.again, details: details.value?.filename === dataset ? details.value : null };
}

function StartForm({ schema, begun }) {
  const [asked, setAsked] = useState(begun);
  const [refused, setRefused] = useState(null);
  const set = useCallback((settings) => {
    setAsked((now) => changed(now, typeof settings === "function" ? settings(now) : settings));
    setRefused(null);
  }, []);
  const { there, again, details } = useDetails(asked.dataset);
  useEffect(() => suit(asked, details, set), [details]);
  const body = useMemo(() => bodyOf(asked), [asked]);
  const whole = isWhole(asked);
  const answer = usePreflight(whole ? body : null);
  const shown = refused ? { value: answer.value, problem: refused, busy: false } : answer;
  const problems = problemsByField(shown);
  const make = { known: (name) => name in schema && name !== "queue", set, asked };
  const start = (more) => async () => {
    try {
      const { job_id: jobId } = await post("/api/start_training", { ...body, ...more });
      go("jobs", jobId);
    } catch (problem) {
      setRefused(problem);
      throw problem;
    }
  };
  const runs = useStore(jobs, (all) => all?.some(isActive) ?? false);
  const sections = { asked, set, problems, make, details, answer };
  return html`<form class="start" onSubmit=${(event) => event.preventDefault()}>
    <div class="sections">
      <${DataSection} ...${sections} there=${there} again=${again} />
      <${ModelSection} ...${sections} />
      <${StrategySection} ...${sections} />
      <${Card} title="Parameters"><p class="soft">What is left alone is chosen by the trainer, and not sent.</p>
        <${Parameters} schema=${schema} asked=${asked} set=${set} problems=${problems} make=${make} />
      <//>
    </div>
    <aside class="beside" aria-label="What it takes">
      <${Card} title="What it takes">
        <${PreflightPanel} preflight=${shown} show=${show} />
        <${Problems} of=${problems.get("")} make=${make} />
        <div class="actions go">
          <${Action} kind=${runs ? "" : "primary"} disabled=${!whole} onClick=${start({})}>Start<//>
          <${Action} kind=${runs ? "primary" : ""} disabled=${!whole} onClick=${start({ queue: true })}>Queue<//>
        </div>
        <p class="soft">${whole ? (runs ? "A job runs now: in the queue this one waits for its end." : "Queue: it waits, should another job be first.") : "Choose a dataset first."}</p>
      <//>
      <${Card} title="The same by hand"><${AsCode} path="/api/start_training" body=${runs ? { ...body, queue: true } : body} /><//>
    </aside>
  </form>`;
}

/** Task and strategy that a dataset serves, where those that are chosen are not among them. */
function suit(asked, details, set) {
  if (!details) return;
  const settings = {};
  if (!details.tasks.includes(asked.task)) settings.task = details.tasks[0];
  if (!details.strategies.includes(asked.strategy)) settings.strategy = details.strategies[0];
  if (Object.keys(settings).length) set(settings);
}

/** Bring a field to where it is seen, and the keyboard to it. */
function show(field) {
  const place = document.getElementById(idOf(field));
  place?.scrollIntoView({ block: "center" });
  place?.focus({ preventScroll: true });
}
