// An answer of the playground: its text, its tokens with their probabilities, or its place in a context.
import { CopyAsCode } from "./as_code.js";
import { html, useEffect, useId, useMemo, useRef, useState } from "./dom.js";
import { count, duration, figure, share } from "./format.js";
import { Refusal } from "./parts.js";
import { ADDRESS, READS } from "./playground_chat.js";

const ENDS = { length: "ended at the limit of tokens", deadline: "ended by the server's deadline" };
const PATIENT = 1500; // ms
const LIKELY = [0.9, 0.5, 0.2, 0.05];

export function Answer({ answer, task, context }) {
  const { label, text, tokens, state, problem, done, body } = answer;
  return html`<article class="answer" aria-label=${`Answer of ${label}`} aria-busy=${state === "coming"}>
    <header><bdi>${label}</bdi><span class="soft">${state === "coming" ? "answers …" : figuresOf(answer, task)}</span></header>
    ${task === READS ? done && html`<${Found} done=${done} context=${context} />`
      : tokens.length > 0 ? html`<${Tokens} tokens=${tokens} />`
      : (text || state === "done") && html`<p class="said" dir="auto">${text || html`<span class="soft">It said nothing.</span>`}</p>`}
    ${state === "coming" && !text && tokens.length === 0 && html`<${Waiting} />`}
    <${Refusal} problem=${problem} />
    ${state !== "coming" && html`<footer><${CopyAsCode} path=${ADDRESS} body=${body} /></footer>`}
  </article>`;
}

/** Said to who waits for a first word. */
function Waiting() {
  const [isLong, setLong] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLong(true), PATIENT);
    return () => clearTimeout(timer);
  }, []);
  return isLong && html`<p class="soft" role="status">The first answer of a model waits until the model is loaded.</p>`;
}

function figuresOf({ state, done, milliseconds }, task) {
  const took = milliseconds < 10_000 ? `${count(Math.round(milliseconds))} ms` : duration(milliseconds / 1000);
  if (state === "refused") return "";
  if (state === "stopped") return `stopped by you after ${took}`;
  if (task === READS) return took;
  const speed = milliseconds > 0 ? `${figure(Math.round(done.tokens_generated / milliseconds * 10000) / 10)} tokens a second` : null;
  return [`${count(done.tokens_generated)} tokens`, took, speed, ENDS[done.finish_reason]].filter(Boolean).join(" · ");
}

/** The context, and the answer marked in it. */
function Found({ done: { generated_text: text, score, start, end }, context }) {
  const box = useRef(null);
  const letters = useMemo(() => Array.from(context), [context]); // the API counts characters, and not UTF-16
  useEffect(() => {
    const mark = box.current?.querySelector("mark");
    if (mark) box.current.scrollTop = mark.offsetTop - box.current.offsetTop - 48;
  }, [start]);
  const isFound = (start ?? null) !== null;
  return html`
    <p class="said" dir="auto">${isFound ? html`<strong>${text}</strong>` : "The context has no answer, says the model."} <span class="soft">score ${share(score)}</span></p>
    <div class="context" ref=${box} tabindex="0" role="region" aria-label="The context" dir="auto">${isFound ? html`${letters.slice(0, start).join("")}<mark>${letters.slice(start, end).join("")}</mark>${letters.slice(end).join("")}` : context}</div>`;
}

const probability = (logprob) => Math.min(1, Math.exp(logprob));
const level = (chance) => LIKELY.findIndex((least) => chance >= least);
const percents = new Intl.NumberFormat(undefined, { style: "percent", maximumSignificantDigits: 3 });
const SEEN = { " ": "␣", "\n": "⏎", "\t": "⇥" };
const hidden = (sign) => SEEN[sign] ?? String.fromCharCode(0x2400 + sign.charCodeAt(0));
/** A token as a word of its own: what is white is seen, and what is no whole character is told by its bytes. */
function spelled({ text, bytes }) {
  if (text === "") return "(nothing)";
  if (text.includes("\ufffd")) return bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
  return text.replace(/[\u0000-\u0020]/g, hidden);
}
const isSame = (one, other) => one.bytes.join() === other.bytes.join() && one.text === other.text;

/** What each token adds to the text: bytes of a character that is not yet whole add nothing. */
function pieces(tokens) {
  const decoder = new TextDecoder();
  return tokens.map((token) => decoder.decode(new Uint8Array(token.bytes), { stream: true }));
}

/** The text token by token; arrow keys go from one to the next, and each shows what could have stood in its place. */
function Tokens({ tokens }) {
  const texts = useMemo(() => pieces(tokens), [tokens]);
  const [at, setAt] = useState({ index: 0, shown: false });
  const place = useRef(null);
  const id = useId();
  const show = (index) => setAt({ index, shown: true });
  const hide = () => setAt((now) => ({ ...now, shown: false }));
  const move = (event) => {
    const next = { ArrowRight: at.index + 1, ArrowLeft: at.index - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (event.key === "Escape") hide();
    if (next === undefined) return;
    event.preventDefault();
    place.current.children[Math.max(0, Math.min(tokens.length - 1, next))].focus();
  };
  return html`<div class="answer-tokens" onMouseLeave=${hide}>
    <p class="said" dir="auto" role="group" aria-label="The answer's tokens; arrow keys go through them" ref=${place} onKeyDown=${move}>
      ${tokens.map((token, index) => html`<span role="button" tabindex=${index === at.index ? 0 : -1} class=${`answer-token likely${level(probability(token.logprob))}`} aria-label=${`${spelled(token)}, ${percents.format(probability(token.logprob))}`} aria-describedby=${at.shown && index === at.index ? id : undefined}
        onFocus=${() => show(index)} onBlur=${hide} onMouseEnter=${() => show(index)}>${texts[index] || (token.bytes.length ? "" : html`<span class="ends" aria-hidden="true">▪</span>`)}</span>`)}
    </p>
    ${at.shown && html`<${Alternatives} id=${id} token=${tokens[at.index]} under=${place.current.children[at.index]} />`}
  </div>`;
}

function Alternatives({ id, token, under }) {
  const top = token.top.some((one) => isSame(one, token)) ? token.top : [...token.top, token]; // what was taken was less likely
  const style = { top: `${under.offsetTop + under.offsetHeight + 4}px`, left: `${Math.max(0, Math.min(under.offsetLeft, under.offsetParent.clientWidth - 220))}px` };
  return html`<div class="alternatives" id=${id} style=${style}><table>
    <caption class="unseen">What could have stood here</caption>
    <thead class="unseen"><tr><th>Token</th><th>Probability</th></tr></thead>
    <tbody>${top.map((one) => html`<tr class=${isSame(one, token) ? "taken" : ""}><td><code><bdi>${spelled(one)}</bdi></code></td><td class="number">${percents.format(probability(one.logprob))}</td></tr>`)}</tbody>
  </table></div>`;
}
