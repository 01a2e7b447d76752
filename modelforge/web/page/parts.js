// The parts that views are made of.
import { html, useEffect, useRef, useState } from "./dom.js";
import { duration, ranSeconds, share } from "./format.js";

const WORDS = {
  queued: "Queued", starting: "Starting", training: "Training", stopping: "Stopping", stopped: "Stopped",
  completed: "Completed", failed: "Failed", idle: "Idle",
};

export const Badge = ({ status }) => html`<span class=${`badge ${status}`}>${WORDS[status] ?? status}</span>`;

export function Progress({ value, label }) {
  const known = value !== null && value !== undefined;
  return html`<progress max="100" value=${known ? value : undefined} aria-label=${label}>${known ? share(value / 100) : ""}</progress>`;
}

export const Card = ({ title, actions, children, class: more = "" }) => html`<section class=${`card ${more}`}>
  ${title && html`<header><h2>${title}</h2>${actions && html`<div class="actions">${actions}</div>`}</header>`}
  ${children}
</section>`;

/** What was refused, and what would work. */
export function Refusal({ problem }) {
  if (!problem) return null;
  return html`<div class="refusal" role="alert">
    <strong>${problem.message}</strong>
    ${problem.detail && html`<p>${problem.detail}</p>`}
    ${problem.problems?.length > 1 && html`<ul>
      ${problem.problems.map((one) => html`<li><strong>${one.message}</strong> ${one.remedy}</li>`)}
    </ul>`}
  </div>`;
}

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** Facts by name: `[["Loss", "1.2"], …]`; one whose value is null is left out. */
export const Facts = ({ of }) => html`<dl class="facts">
  ${of.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
</dl>`;

/**
 * Things of a kind, one a row; where it is narrow each is a card. `columns`: `[[name, class], …]`, where `head` is what
 * a thing is known by, and `wide` has a line of its own; `rows`: `[[key, cells], …]`, and a cell of null says nothing.
 * The roles are those of a table: a browser may take them from one that its style draws as something else.
 */
export const Listing = ({ columns, rows }) => html`<div class="table listed"><table role="table">
  <thead role="rowgroup"><tr role="row">${columns.map(([name, kind = ""]) => html`<th role="columnheader" class=${kind}>${kind.includes("act") ? html`<span class="unseen">${name}</span>` : name}</th>`)}</tr></thead>
  <tbody role="rowgroup">${rows.map(([key, cells]) => html`<tr role="row" key=${key}>${cells.map((cell, at) => html`<td role="cell" class=${columns[at][1]} data-name=${columns[at][0]}>${cell}</td>`)}</tr>`)}</tbody>
</table></div>`;

/** A button that shows that it works, and what it was refused. `confirm`: what is asked before. */
export function Action({ onClick, children, confirm, kind = "", disabled = false }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const [asked, setAsked] = useState(false);
  const alive = useRef(true);
  const place = useRef(null);
  useEffect(() => () => { alive.current = false; }, []);
  const turn = (is) => {
    setAsked(is);
    // What was pressed is gone: the keyboard goes on with what stands in its place.
    requestAnimationFrame(() => place.current?.querySelector("button")?.focus());
  };
  const act = async () => {
    setAsked(false);
    setBusy(true);
    setProblem(null);
    try {
      await onClick();
    } catch (refused) {
      if (alive.current) setProblem(refused);
    }
    if (alive.current) setBusy(false);
  };
  return html`<span class="action" ref=${place}>
    ${asked
      ? html`<span class="confirm" role="group" aria-label=${confirm} onKeyDown=${(event) => event.key === "Escape" && turn(false)}><span>${confirm}</span>
          <button type="button" class=${kind} onClick=${act}>${children}</button>
          <button type="button" onClick=${() => turn(false)}>Cancel</button></span>`
      : html`<button type="button" class=${kind} disabled=${busy || disabled} aria-busy=${busy} onClick=${confirm ? () => turn(true) : act}>${children}</button>`}
    <${Refusal} problem=${problem} />
  </span>`;
}

/** Put a text into the clipboard; over http from another machine a browser has none, but for what is selected. */
async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const [place, before] = [document.createElement("textarea"), document.activeElement];
  place.value = text;
  place.className = "unseen";
  place.readOnly = true;
  document.body.append(place);
  place.select();
  const isCopied = document.execCommand("copy");
  place.remove();
  before?.focus();
  if (!isCopied) throw new Error("The browser lets no page copy here");
  return undefined;
}

/** A text to copy; where a browser lets no page do that, it is shown selected. */
export function Copy({ text, label = "Copy" }) {
  const [state, setState] = useState("");
  useEffect(() => {
    if (state !== "copied") return undefined;
    const timer = setTimeout(() => setState(""), 1500);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = () => toClipboard(text).then(() => setState("copied"), () => setState("by hand"));
  const place = useRef(null);
  useEffect(() => place.current?.focus(), [state]);
  return html`<button type="button" class="quiet" onClick=${copy}>${state === "copied" ? "Copied" : label}</button>
    ${state === "by hand" && html`<textarea class="by-hand" readonly rows="3" aria-label="To copy by hand" ref=${place} onFocus=${(event) => event.target.select()} value=${text}></textarea>`}`;
}

/** A labelled part of a form. `hint`: what it is for; `problem`: what is wrong with it. */
export function Field({ label, hint, problem, children, id }) {
  return html`<div class=${`field ${problem ? "wrong" : ""}`}>
    <label for=${id}>${label}</label>
    ${children}
    ${hint && html`<small id=${`${id}-hint`}>${hint}</small>`}
    ${problem && html`<p class="wrong-word" role="alert">${problem}</p>`}
  </div>`;
}

/** A text that counts once it is left or entered; what is being typed stays, whatever is drawn meanwhile. */
export function Typed({ value, onTyped, ...rest }) {
  const [draft, setDraft] = useState(null);
  const done = (event) => {
    setDraft(null);
    onTyped(event.target.value.trim());
  };
  return html`<input ...${rest} value=${draft ?? value} onInput=${(event) => setDraft(event.target.value)} onChange=${done} />`;
}

/** How long a job ran, or runs: its attempts, without the pauses between them. */
export function Elapsed({ job }) {
  const [now, setNow] = useState(Date.now());
  const goesOn = job.finished_at === null;
  useEffect(() => {
    if (!goesOn) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [goesOn]);
  const seconds = ranSeconds(job, now);
  return seconds !== null && html`<span>${duration(seconds)}</span>`;
}

/** The name of the page in the browser's tab, and the heading of a view. */
export function Title({ children, name, actions }) {
  useEffect(() => {
    document.title = `${name} · ModelForge`;
  }, [name]);
  return html`<header class="title"><h1 tabindex="-1">${children ?? name}</h1>${actions && html`<div class="actions">${actions}</div>`}</header>`;
}
