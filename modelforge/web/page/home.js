// The one screen first seen: is the training well, what has it learned, and what is next.
import { CurvesPanel } from "./curves_panel.js";
import { html } from "./dom.js";
import { FirstSteps } from "./first_steps.js";
import { moment, since } from "./format.js";
import { JobActions, JobLine, JobNow, jobName, lastWord } from "./job_summary.js";
import { isActive, isOver, jobs } from "./jobs.js";
import { LogTail } from "./log_tail.js";
import { askPermission, permission } from "./notices.js";
import { Badge, Card, Elapsed, Empty, Title } from "./parts.js";
import { link } from "./router.js";
import { useStore } from "./store.js";

const SHOWN = 8;

export function Home() {
  const all = useStore(jobs);
  if (all === null) return html`<${Title} name="Home" /><${Empty}>Reading what there is …<//>`;
  if (all.length === 0) return html`<${FirstSteps} />`;
  const running = all.filter(isActive);
  const queued = all.filter((job) => job.status === "queued").sort((a, b) => a.queue_position - b.queue_position);
  const over = all.filter(isOver);
  const shown = running[0] ?? over[0];
  return html`
    <${Title} name="Home" actions=${html`<${Bell} /><a class="button primary" href=${link("start")}>New training</a>`} />
    ${shown && html`<${Hero} key=${shown.job_id} job=${shown} />`}
    <div class="two">
      ${running.length > 1 && html`<${Card} title="Running too"><ul class="lines">${running.slice(1).map((job) => html`<${JobLine} key=${job.job_id} job=${job} />`)}</ul><//>`}
      ${queued.length > 0 && html`<${Card} title="Queue"><ul class="lines">${queued.map((job) => html`<${JobLine} key=${job.job_id} job=${job} />`)}</ul><//>`}
      <${Card} title="Last jobs" actions=${html`<a href=${link("jobs")}>All jobs</a>`}>
        ${over.length ? html`<ul class="lines">${over.slice(0, SHOWN).map((job) => html`<${JobLine} key=${job.job_id} job=${job} />`)}</ul>` : html`<${Empty}>None has ended yet.<//>`}
      <//>
    </div>`;
}

/** The job that runs, or else the last one, large. */
function Hero({ job }) {
  return html`<section class=${`card hero ${job.status}`} aria-label=${jobName(job)}>
    <header>
      <div>
        <p class="over"><${Badge} status=${job.status} /> ${job.job_id} ${job.attempt > 1 && html`<span class="soft">attempt ${job.attempt}</span>`}</p>
        <h2><a href=${link("jobs", job.job_id)}><bdi>${jobName(job)}</bdi></a></h2>
        <p class="soft">
          ${isActive(job) ? html`started ${moment(job.started_at)}, running for <${Elapsed} job=${job} />` : html`ended ${since(job.finished_at)}${job.started_at && html` after <${Elapsed} job=${job} />`}`}
          ${!isActive(job) && lastWord(job) && html`: <span class=${job.error ? "error-word" : ""}><bdi>${lastWord(job)}</bdi></span>`}
        </p>
      </div>
      <div class="actions"><${JobActions} job=${job} /></div>
    </header>
    <${JobNow} job=${job} />
    ${job.kind === "training" && job.attempt > 0 && html`<${CurvesPanel} jobId=${job.job_id} isOver=${isOver(job)} few />`}
    ${isActive(job) && html`<details class="tail" open><summary>Log</summary><${LogTail} jobId=${job.job_id} attempt=${job.attempt || null} goesOn lines=${8} /></details>`}
  </section>`;
}

function Bell() {
  const state = useStore(permission);
  if (state !== "default") return null;
  return html`<button type="button" onClick=${askPermission}>Tell me when a job ends</button>`;
}
