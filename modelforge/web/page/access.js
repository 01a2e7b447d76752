// Who is signed in, and the tokens by which others come in.
import { get, path, post, remove, signedOut } from "./api.js";
import { html, useEffect, useId, useState } from "./dom.js";
import { moment } from "./format.js";
import { Action, Card, Copy, Empty, Facts, Field, Listing, Refusal } from "./parts.js";
import { useAnswer } from "./store.js";
import { Webhooks } from "./webhooks.js";

const SCOPES = { read: "sees everything, changes nothing", write: "trains, uploads, deletes and asks models", admin: "makes and revokes tokens too" };
const LOOK_EVERY = 3000;
const DAY = 86_400_000;
const COLUMNS = [["Name", "head name"], ["Scope"], ["Made"], ["Expires"], ["Revoke", "act"]];
const LASTS = [["", "Never"], ["7", "In 7 days"], ["30", "In 30 days"], ["90", "In 90 days"], ["365", "In a year"]];

export function Access() {
  const { value: who, problem, again } = useAnswer((signal) => get("/api/session", signal), []);
  return html`<${Card} title="Who asks">
    <${Refusal} problem=${problem} />
    ${who && html`<${Who} who=${who} />`}
  <//>
  ${who?.scope === "admin" && html`<${Tokens} onChange=${again} /><${Webhooks} />`}`;
}

function Who({ who }) {
  const leave = async () => {
    await remove("/api/session");
    signedOut.set(who.token_required);
    if (!who.token_required) location.reload();
  };
  const name = who.name === null ? "anybody on this machine" : who.name;
  return html`<${Facts} of=${[
      ["Signed in as", html`<bdi>${name}</bdi>`],
      ["Scope", `${who.scope}: ${SCOPES[who.scope]}`],
      ["Until", who.signed_in ? moment(who.expires_at) : null],
      ["A token is needed", who.token_required ? "yes" : "no: this server asks nobody who they are"],
    ]} />
    ${who.signed_in && html`<div class="actions"><${Action} onClick=${leave}>Sign out<//></div>`}
    ${who.scope !== "admin" && html`<p class="soft">Tokens and webhooks are for who has the scope admin. The owner of the data signs a browser in by <code>modelforge token link</code>.</p>`}`;
}

function Tokens({ onChange }) {
  const { value, problem, again } = useAnswer((signal) => get("/api/tokens", signal), []);
  const [made, setMade] = useState(null);
  const [asked, setAsked] = useState(false);
  const changed = () => { again(); onChange(); };
  const revoke = (name) => async () => {
    await remove(path`/api/tokens/${name}`);
    if (made?.name === name) setMade(null);
    changed();
  };
  return html`<${Card} title="Tokens" actions=${!asked && html`<button type="button" class="primary" onClick=${() => setAsked(true)}>New token</button>`}>
    <${Refusal} problem=${problem} />
    ${asked && html`<${NewToken} isFirst=${value?.tokens.length === 0} onMade=${(token) => { setMade(token); setAsked(false); changed(); }} onCancel=${() => setAsked(false)} />`}
    ${made && html`<div class="made" role="status"><p><strong>This is the token ${made.name}. It is shown this once:</strong></p>
      <p><code>${made.token}</code> <${Copy} text=${made.token} /></p>
      <button type="button" onClick=${() => setMade(null)}>I have it</button></div>`}
    ${value && (value.tokens.length ? html`<${Listing} columns=${COLUMNS} rows=${value.tokens.map((token) => [token.name, [
      html`<bdi class="few">${token.name}</bdi>`, token.scope, moment(token.created_at), token.expires_at ? moment(token.expires_at) : "never",
      html`<${Action} kind="danger" confirm=${`Let nobody in by ${token.name} any more?`} onClick=${revoke(token.name)}>Revoke<//>`,
    ]])} />` : html`<${Empty}>There is none.<//>`)}
  <//>`;
}

function NewToken({ isFirst, onMade, onCancel }) {
  const [name, setName] = useState("");
  const [scope, setScope] = useState("write");
  const [days, setDays] = useState("30");
  const [nameId, scopeId, daysId] = [useId(), useId(), useId()];
  const make = async () => {
    const expires = days ? new Date(Date.now() + Number(days) * DAY).toISOString() : null;
    onMade(await post("/api/tokens", { name: name.trim(), scope, expires_at: expires }));
  };
  return html`<div class="filter" role="group" aria-label="New token">
    <${Field} label="Name" id=${nameId}><input id=${nameId} value=${name} maxlength="64" autocomplete="off" placeholder="laptop" onInput=${(event) => setName(event.target.value)} /><//>
    <${Field} label="Scope" id=${scopeId}><select id=${scopeId} value=${scope} onChange=${(event) => setScope(event.target.value)}>
      ${Object.entries(SCOPES).map(([one, told]) => html`<option value=${one}>${one}: ${told}</option>`)}
    </select><//>
    <${Field} label="Expires" id=${daysId}><select id=${daysId} value=${days} onChange=${(event) => setDays(event.target.value)}>
      ${LASTS.map(([value, told]) => html`<option value=${value}>${told}</option>`)}
    </select><//>
    <${Action} kind="primary" disabled=${!name.trim()} onClick=${make}>Make it<//>
    <button type="button" onClick=${onCancel}>Cancel</button>
    ${isFirst && html`<p class="warning">It is the first: from then on every request has to show a token, and every browser has to be signed in.</p>`}
  </div>`;
}

/** What is shown where the server wants to know who asks, and does not. */
export function SignIn() {
  const look = async () => {
    await get("/api/session");
    signedOut.set(false);
  };
  useEffect(() => {
    localStorage.setItem("wished", location.hash); // where the link's page leads to
    const timer = setInterval(() => document.hidden || look().catch(() => {}), LOOK_EVERY);
    return () => clearInterval(timer);
  }, []);
  return html`<main id="sign-in" class="alone">
    <h1 tabindex="-1">Sign in</h1>
    <p>This server wants to know who asks. On the machine that it runs on, make a link that signs this browser in once:</p>
    <pre><code>modelforge token link</code></pre>
    <p>Open the link in this browser. This page goes on by itself then.</p>
    <div class="actions"><${Action} onClick=${look}>Look again<//></div>
  </main>`;
}
