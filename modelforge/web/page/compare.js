// Up to eight jobs over each other: their curves, and what they differ in.
import { get, path } from "./api.js";
import { ComparedCurves } from "./compare_curves.js";
import { Differences } from "./compare_differences.js";
import { Swatch } from "./compare_swatch.js";
import { html, useMemo, useState } from "./dom.js";
import { moment } from "./format.js";
import { jobName } from "./job_summary.js";
import { jobs } from "./jobs.js";
import { Badge, Card, Empty, Refusal, Title } from "./parts.js";
import { go, link } from "./router.js";
import { useAnswer, useStore } from "./store.js";

const MOST = 8;

export function Compare({ values }) {
  const wanted = values.get("jobs") ?? "";
  const ids = useMemo(() => [...new Set(wanted.split(",").filter(Boolean))].slice(0, MOST), [wanted]);
  const known = useStore(jobs);
  const { found, problem } = useJobs(ids, known);
  const choose = (chosen) => go("compare", null, chosen.length ? { jobs: chosen.join(",") } : undefined);
  return html`
    <${Title} name="Compare" />
    <${Card}>
      ${found.length > 0 ? html`<ol class="compared">${found.map((job, index) => html`<li key=${job.job_id}>
          <strong>${index + 1}</strong><${Swatch} index=${index} />
          <span><a href=${link("jobs", job.job_id)}><bdi>${jobName(job)}</bdi></a> <small>${job.job_id}</small> <${Badge} status=${job.status} /></span>
          <button type="button" class="quiet" aria-label=${`Leave out ${job.job_id}`} onClick=${() => choose(ids.filter((id) => id !== job.job_id))}>Leave out</button>
        </li>`)}</ol>` : html`<${Empty}>Choose two jobs or more: their curves are drawn over each other, and what they differ in is listed.<//>`}
      <${Refusal} problem=${problem} />
      <${Chooser} ids=${ids} known=${known ?? []} onChoose=${choose} />
    <//>
    ${found.length > 0 && html`<${Card}><${ComparedCurves} jobs=${found} /><//>`}
    ${found.length > 1 && html`<${Differences} jobs=${found} />`}`;
}

/** The jobs as they are now; those that are not among the newest are read by themselves. */
function useJobs(ids, known) {
  const missing = known === null ? [] : ids.filter((id) => !known.some((job) => job.job_id === id));
  const { value, problem } = useAnswer(
    (signal) => Promise.all(missing.map((id) => get(path`/api/jobs/${id}`, signal))),
    [missing.join()],
  );
  const all = [...(known ?? []), ...(value ?? [])];
  return { found: ids.map((id) => all.find((job) => job.job_id === id)).filter(Boolean), problem };
}

function Chooser({ ids, known, onChoose }) {
  const [open, setOpen] = useState(ids.length < 2);
  const trainings = known.filter((job) => job.kind === "training");
  const turn = (id) => onChoose(ids.includes(id) ? ids.filter((one) => one !== id) : [...ids, id]);
  return html`<details class="chooser" open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary>Choose jobs, up to ${MOST}</summary>
    ${trainings.length === 0 ? html`<${Empty}>There is none yet. <a href=${link("start")}>Start a training</a>.<//>`
      : html`<ul class="lines">${trainings.map((job) => html`<li key=${job.job_id}><label class="check">
          <input type="checkbox" checked=${ids.includes(job.job_id)} disabled=${ids.length >= MOST && !ids.includes(job.job_id)} onChange=${() => turn(job.job_id)} />
          <span><bdi>${jobName(job)}</bdi> <span class="soft">${job.job_id}, ${moment(job.started_at ?? job.created_at)}</span></span>
        </label></li>`)}</ul>`}
  </details>`;
}
