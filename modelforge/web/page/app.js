// The frame around the views: where they are found, whether the page is connected, and who has to sign in.
import { SignIn } from "./access.js";
import { signedOut } from "./api.js";
import { Audit } from "./audit.js";
import { Compare } from "./compare.js";
import { Datasets } from "./datasets.js";
import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./dom.js";
import { duration } from "./format.js";
import { Home } from "./home.js";
import { Job } from "./job.js";
import { follow, isActive, jobs } from "./jobs.js";
import { connection } from "./live.js";
import { Machine } from "./machine.js";
import { Models } from "./models.js";
import { watchEnds } from "./notices.js";
import { Title } from "./parts.js";
import { Playground } from "./playground.js";
import { link, place } from "./router.js";
import { Start } from "./start.js";
import { useStore } from "./store.js";

const VIEWS = {
  "": Home, start: Start, jobs: Job, compare: Compare, models: Models, playground: Playground, datasets: Datasets,
  audit: Audit, machine: Machine,
};
const PLACES = [
  ["", "Home"], ["start", "New training"], ["datasets", "Datasets"], ["models", "Models"],
  ["playground", "Playground"], ["compare", "Compare"], ["audit", "Audit"], ["machine", "Machine"],
];

function Navigation({ view, hidden }) {
  const [open, setOpen] = useState(false);
  const running = useStore(jobs, (all) => all?.find(isActive)?.progress ?? null);
  useEffect(() => setOpen(false), [view]);
  return html`<nav aria-label="Views" class=${open ? "open" : ""} hidden=${hidden}>
    <a class="brand" href="#/"><img src="/page/icon.svg" alt="" width="24" height="24" />ModelForge</a>
    <button type="button" class="menu" aria-expanded=${open} aria-controls="places" onClick=${() => setOpen(!open)}>Menu</button>
    <ul id="places">
      ${PLACES.map(([to, name]) => html`<li><a href=${link(to)} aria-current=${to === view || (to === "" && view === "jobs") ? "page" : undefined}>${name}
        ${to === "" && running !== null && html`<span class="pill">${Math.floor(running)} %</span>`}</a></li>`)}
    </ul>
    <${Theme} />
  </nav>`;
}

function Theme() {
  const [chosen, setChosen] = useState(localStorage.getItem("theme") ?? "system");
  const choose = (event) => {
    const theme = event.target.value;
    setChosen(theme);
    if (theme === "system") {
      localStorage.removeItem("theme");
      delete document.documentElement.dataset.theme;
    } else {
      localStorage.setItem("theme", theme);
      document.documentElement.dataset.theme = theme;
    }
    dispatchEvent(new Event("theme"));
  };
  return html`<label class="theme"><span>Theme</span><select value=${chosen} onChange=${choose}>
    <option value="system">System</option><option value="light">Light</option><option value="dark">Dark</option>
  </select></label>`;
}

function Connection() {
  const { state, since: when } = useStore(connection);
  const [, redraw] = useState(0);
  useEffect(() => {
    if (state !== "lost") return undefined;
    const timer = setInterval(() => redraw((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, [state]);
  return html`<div role="status" class=${`connection ${state}`}>
    ${state === "lost" && html`<strong>Not connected</strong> <span aria-hidden="true">for ${duration((Date.now() - when) / 1000)}.</span> Trainings go on without this page; it catches up by itself.`}
  </div>`;
}

function App() {
  const { view, name, values } = useStore(place);
  const isOut = useStore(signedOut);
  const main = useRef(null);
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) {
      main.current?.querySelector("h1")?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [view, name]);
  // Who was in and has to sign in again finds what was begun as it was.
  const wasIn = useStore(connection, ({ ever }) => ever);
  if (isOut && !wasIn) return html`<${SignIn} />`;
  const View = Object.hasOwn(VIEWS, view) ? VIEWS[view] : Nowhere;
  return html`
    ${isOut && html`<${SignIn} />`}
    <a class="skip" hidden=${isOut} href="#main" onClick=${(event) => { event.preventDefault(); main.current?.querySelector("h1")?.focus(); }}>Skip to the content</a>
    <${Navigation} view=${view} hidden=${isOut} />
    <div class="page" hidden=${isOut}>
      <${Connection} />
      <main id="main" ref=${main}><${Guarded} key=${`${view}/${name ?? ""}`}><${View} name=${name} values=${values} /><//></main>
    </div>`;
}

/** A fault of one view is said there, and takes no other down. */
function Guarded({ children }) {
  const [fault, forget] = useErrorBoundary((error) => console.error(error));
  if (!fault) return children;
  return html`<${Title} name="This view has a fault" /><p class="refusal" role="alert">${String(fault)}</p>
    <button type="button" onClick=${forget}>Draw it again</button>`;
}

const Nowhere = () => html`<${Title} name="Nothing is here" /><p>The address has no view. <a href="#/">Go home</a>.</p>`;

/** A file that is dropped where none is awaited is not shown in place of the page. */
function keepThePage(event) {
  if (event.defaultPrevented || !event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "none";
}

for (const name of ["dragover", "drop"]) addEventListener(name, keepThePage);
watchEnds();
follow();
render(html`<${App} />`, document.body);
