// This machine: what it has and who uses it, what the doctor finds, and who may come in.
import { Access } from "./access.js";
import { get, post } from "./api.js";
import { html, useEffect, useState } from "./dom.js";
import { bytes, count } from "./format.js";
import { jobs } from "./jobs.js";
import { Action, Card, Empty, Facts, Refusal, Title } from "./parts.js";
import { link } from "./router.js";
import { useAnswer, useStore } from "./store.js";

const EVERY = 5000;

export function Machine() {
  return html`
    <${Title} name="Machine" />
    <${Hardware} />
    <${Doctor} />
    <${Access} />`;
}

function Hardware() {
  const running = useStore(jobs, (all) => all?.filter(({ gpus, status }) => status === "training" && gpus).length ?? 0);
  const [beat, setBeat] = useState(0);
  const { value: machine, problem } = useAnswer((signal) => get("/api/machine", signal), [running, beat]);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setBeat((n) => n + 1), EVERY);
    return () => clearInterval(timer);
  }, []);
  if (!machine) return html`<${Card} title="What it has"><${Refusal} problem=${problem} /><//>`;
  const { processors, memory, swap, disk, gpus, work, versions } = machine;
  return html`<${Card} title="What it has">
    <${Refusal} problem=${problem} />
    <div class="grid">
      <${Used} title="Memory" room=${memory} />
      ${swap && html`<${Used} title="Swap" room=${swap} />`}
      <${Used} title="Disk of the data" room=${disk} note=${`${bytes(disk.reserved_bytes)} stay free for the log and checkpoints`} />
      ${gpus.map((gpu) => html`<${Gpu} key=${gpu.name} gpu=${gpu} />`)}
    </div>
    <${Facts} of=${[
      ["Processors", processors.usable === processors.total ? count(processors.total) : `${count(processors.usable)} of ${count(processors.total)} may be used`],
      ["GPUs", gpus.length ? count(gpus.length) : "none"],
      ["Jobs that run", html`${work.running.length ? work.running.map((id) => html`<a href=${link("jobs", id)}>${id}</a> `) : "none"}`],
      ["At once", count(work.at_once)],
      ["In the queue", count(work.queued)],
      ["The log", bytes(disk.log_bytes)],
    ]} />
    <details><summary>Versions</summary><${Facts} of=${[
      ["ModelForge", machine.release], ["Python", machine.python], ["Platform", machine.platform], ...Object.entries(versions),
    ]} /></details>
  <//>`;
}

function Used({ title, room, note }) {
  const used = room.total_bytes - room.available_bytes;
  return html`<div class="used">
    <p><strong>${title}</strong> <span>${bytes(room.available_bytes)} free of ${bytes(room.total_bytes)}</span></p>
    <meter min="0" max=${room.total_bytes} value=${used} high=${room.total_bytes * 0.9} aria-label=${`${title}: ${bytes(used)} of ${bytes(room.total_bytes)} are used`}></meter>
    ${note && html`<small class="soft">${note}</small>`}
  </div>`;
}

function Gpu({ gpu }) {
  const title = `GPU ${gpu.name}${gpu.product ? `: ${gpu.product}` : ""}`;
  const users = gpu.job_ids.length ? html`used by ${gpu.job_ids.map((id) => html`<a href=${link("jobs", id)}>${id}</a> `)}` : "no job has it";
  if (!gpu.memory) return html`<div class="used"><p><strong>${title}</strong></p><small class="soft">${users}</small></div>`;
  return html`<${Used} title=${title} room=${gpu.memory} note=${users} />`;
}

const LEVELS = { ok: "Well", warning: "Warning", problem: "Problem" };
const ORDER = ["problem", "warning", "ok"];

function Doctor() {
  const [findings, setFindings] = useState(null);
  const counted = (level) => findings.filter((one) => one.level === level).length;
  const examine = async () => setFindings((await post("/api/doctor")).findings);
  const [well, rest] = findings === null ? [[], []] : [findings.filter(({ level }) => level === "ok"), findings.filter(({ level }) => level !== "ok")];
  return html`<${Card} title="Doctor" actions=${html`<${Action} kind="primary" onClick=${examine}>${findings ? "Look again" : "Look for what is wrong"}<//>`}>
    <div role="status">${findings === null
      ? html`<p class="soft">It reads the log and every file of the data, and looks at this machine; nothing is changed. <code>modelforge doctor</code> does the same.</p>`
      : html`<p><strong>${ORDER.filter(counted).map((level) => `${count(counted(level))} ${LEVELS[level].toLowerCase()}`).join(", ")}</strong></p>`}</div>
    ${rest.length > 0 && html`<${Findings} of=${rest.toSorted((a, b) => ORDER.indexOf(a.level) - ORDER.indexOf(b.level))} />`}
    ${findings !== null && rest.length === 0 && html`<${Empty}>Nothing is wrong.<//>`}
    ${well.length > 0 && html`<details><summary>What is well</summary><${Findings} of=${well} /></details>`}
  <//>`;
}

const Findings = ({ of }) => html`<ul class="lines findings">${of.map((one) => html`<li>
  <span class=${`level level-${one.level}`}>${LEVELS[one.level]}</span> <strong>${one.subject}</strong>
  <p><bdi>${one.found}</bdi></p>
  ${one.remedy && html`<p class="remedy"><bdi>${one.remedy}</bdi></p>`}
</li>`)}</ul>`;
