// Trying models: a chat, a document or a question, asked of one model or of two side by side.
import { get } from "./api.js";
import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "./dom.js";
import { Card, Empty, Field, Refusal, Title } from "./parts.js";
import { Answer } from "./playground_answer.js";
import { BEGUN, READS, TEXT, ask, clear, isComing, stop, turns } from "./playground_chat.js";
import { ModelChoice, beside, chosen, first, sideOf } from "./playground_models.js";
import { Store, useAnswer, useStore } from "./store.js";

const SAMPLING = [
  ["temperature", "Temperature", "0 always takes the likeliest token."],
  ["top_p", "Top p", "Of the likeliest tokens that together have this probability."],
  ["max_new_tokens", "Tokens at most", ""], ["seed", "Seed", "Left empty: another one each time."],
];
const NEAR = 200; // CSS pixels from the page's end
/** Whom, how and what: kept when another view is shown. */
const kept = new Store({ choices: null, settings: BEGUN, context: "", wanted: null });
const keep = (changes) => kept.set({ ...kept.get(), ...changes });

export function Playground({ values }) {
  const { value, problem } = useAnswer((signal) => get("/api/models", signal), []);
  const { choices, settings, context } = useStore(kept);
  const all = useStore(turns);
  const models = value?.models;
  const wanted = [values.get("model"), values.get("beside")].filter(Boolean).map((id) => `m:${id}`).join();
  useEffect(() => {
    // An address that was followed already does not undo what was chosen since.
    if (!models || (choices && (!wanted || wanted === kept.get().wanted))) return;
    keep({ wanted, choices: wanted ? wanted.split(",").map(chosen) : [first(models)] });
  }, [models, wanted]);
  useFollowing(all);
  if (!models || !choices) return html`<${Title} name="Playground" /><${Refusal} problem=${problem} />${!problem && html`<${Empty}>Reading which models there are …<//>`}`;
  const sides = choices.map((choice) => sideOf(choice, models));
  const task = sides[0]?.task ?? TEXT;
  const choose = (index, choice) => {
    const next = choices.with(index, choice);
    const now = sideOf(next[0], models)?.task;
    // Two models of different tasks cannot be asked the same.
    keep({ choices: next.filter((one, at) => at === 0 || sideOf(one, models)?.task === now) });
  };
  const send = (prompt, from = null) => ask({ prompt, context: task === READS ? context : null }, sides, settings, from);
  const isAnswering = isComing(all);
  const refused = all.at(-1)?.answers.map((answer) => answer.problem).find(Boolean) ?? null;
  const canAsk = sides.every(Boolean) && !isAnswering;
  return html`
    <${Title} name="Playground" actions=${all.length > 0 && html`<button type="button" onClick=${clear}>Clear</button>`} />
    <${Card}>
      <div class="asked-models">
        ${choices.map((choice, index) => html`<${ModelChoice} key=${index} label=${index ? "Beside it" : "Model"} choice=${choice} models=${models} only=${index ? task : null} onChoice=${(next) => choose(index, next)} />`)}
        ${choices.length < 2 ? html`<button type="button" disabled=${!sides[0]} onClick=${() => keep({ choices: [...choices, beside(choices[0], models, task)] })}>Ask two side by side</button>`
          : html`<button type="button" onClick=${() => keep({ choices: choices.slice(0, 1) })}>Ask one only</button>`}
      </div>
      ${!sides.every(Boolean) && html`<p class="warning" role="alert">There is no such model any more: choose another.</p>`}
      ${task !== READS && html`<${Sampling} task=${task} settings=${settings} refused=${refused} />`}
    <//>
    <div class="turns" role="log" aria-label="Questions and answers" aria-busy=${isAnswering}>
      ${all.map((turn, index) => html`<${Turn} key=${turn.id} turn=${turn} canAsk=${canAsk && turn.task === task} isLast=${index === all.length - 1} onAgain=${(prompt) => send(prompt, turn.id)} />`)}
    </div>
    <${Composer} task=${task} context=${context} isAnswering=${isAnswering} canAsk=${canAsk} onSend=${send} />`;
}

/** Show what is asked, and then the answer as it grows, unless the reader went up to read. */
function useFollowing(all) {
  const seen = useRef(all.length);
  useLayoutEffect(() => {
    const page = document.documentElement;
    const isNew = all.length > seen.current;
    seen.current = all.length;
    if (all.at(-1)?.task !== TEXT) {
      if (isNew) document.querySelector(".turn:last-child")?.scrollIntoView({ block: "nearest" });
    } else if (isNew || page.scrollHeight - innerHeight - scrollY < NEAR) scrollTo(0, page.scrollHeight);
  }, [all]);
}

function Sampling({ task, settings, refused }) {
  const id = useId();
  const set = (name, value) => keep({ settings: { ...settings, [name]: value } });
  const wrong = (name) => (refused?.field === name ? `${refused.message}. ${refused.detail}` : null);
  return html`
    <label class="check"><input type="checkbox" checked=${settings.probabilities} onChange=${(event) => set("probabilities", event.target.checked)} /> Show probabilities</label>
    <details class="sampling"><summary>Sampling</summary>
      <div class="fields">
        ${SAMPLING.map(([name, label, hint]) => html`<${Field} key=${name} id=${id + name} label=${label} hint=${hint} problem=${wrong(name)}>
          <input id=${id + name} aria-describedby=${hint ? `${id + name}-hint` : undefined} inputmode="decimal" autocomplete="off" value=${settings[name]} onInput=${(event) => set(name, event.target.value)} /><//>`)}
        <${Field} id=${`${id}stop`} label="Texts that end the answer" hint="One a line, up to four; \\n stands for an end of a line." problem=${wrong("stop")}>
          <textarea id=${`${id}stop`} aria-describedby=${`${id}stop-hint`} rows="2" value=${settings.stop} onInput=${(event) => set("stop", event.target.value)}></textarea><//>
        ${task === TEXT && html`<${Field} id=${`${id}system`} label="System" hint="What the model is told before the chat.">
          <textarea id=${`${id}system`} aria-describedby=${`${id}system-hint`} rows="2" value=${settings.system} onInput=${(event) => set("system", event.target.value)}></textarea><//>`}
      </div>
    </details>`;
}

function Turn({ turn, canAsk, isLast, onAgain }) {
  const [draft, setDraft] = useState(null);
  const again = () => {
    onAgain(draft);
    setDraft(null);
  };
  return html`<section class="turn">
    <div class="asked">
      ${draft === null ? html`<p class="said" dir="auto">${turn.prompt}</p>`
        : html`<textarea aria-label="What was asked, to change" rows="3" value=${draft} onInput=${(event) => setDraft(event.target.value)} onKeyDown=${onEnter(again, turn.task)}></textarea>`}
      <div class="actions">${draft === null
        ? html`<button type="button" class="quiet" disabled=${!canAsk} onClick=${() => setDraft(turn.prompt)}>Edit</button>
          ${isLast && html`<button type="button" class="quiet" disabled=${!canAsk} onClick=${() => onAgain(turn.prompt)}>Ask again</button>`}`
        : html`<button type="button" class="primary" disabled=${!canAsk || !draft} onClick=${again}>Send again</button><button type="button" onClick=${() => setDraft(null)}>Cancel</button>`}</div>
    </div>
    <div class=${`answers of${turn.answers.length}`}>${turn.answers.map((answer, side) => html`<${Answer} key=${side} answer=${answer} task=${turn.task} context=${turn.context} />`)}</div>
  </section>`;
}

/** Enter sends, and with Shift begins a line; in a document, which has lines, Ctrl and Enter send. */
const onEnter = (send, task) => (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  const sends = task === TEXT || task === READS ? !event.shiftKey : event.ctrlKey || event.metaKey;
  if (!sends) return;
  event.preventDefault();
  send();
};

const PROMPTS = {
  [TEXT]: ["Say something", "Enter sends, Shift and Enter begin a line.", 2],
  [READS]: ["Question", "Enter sends.", 1],
  summarization: ["Document to sum up", "Ctrl and Enter send.", 8],
};

function Composer({ task, context, isAnswering, canAsk, onSend }) {
  const [prompt, setPrompt] = useState("");
  const id = useId();
  const [label, hint, rows] = PROMPTS[task];
  const isReady = canAsk && prompt.trim() !== "" && (task !== READS || context.trim() !== "");
  const send = () => {
    if (!isReady) return;
    onSend(prompt);
    if (task === TEXT) setPrompt("");
  };
  return html`<form class=${`card composer ${task === TEXT ? "low" : ""}`} onSubmit=${(event) => { event.preventDefault(); send(); }}>
    ${task === READS && html`<${Field} id=${`${id}context`} label="Context" hint="The text that the answer stands in.">
      <textarea id=${`${id}context`} aria-describedby=${`${id}context-hint`} dir="auto" rows="8" value=${context} onInput=${(event) => keep({ context: event.target.value })}></textarea><//>`}
    <${Field} id=${id} label=${label} hint=${hint}>
      <textarea id=${id} aria-describedby=${`${id}-hint`} dir="auto" rows=${rows} value=${prompt} onInput=${(event) => setPrompt(event.target.value)} onKeyDown=${onEnter(send, task)}></textarea><//>
    <div class="actions">${isAnswering ? html`<button type="button" class="danger" onClick=${stop}>Stop</button>` : html`<button class="primary" disabled=${!isReady}>Send</button>`}</div>
  </form>`;
}
