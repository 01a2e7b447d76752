// A request as a program would send it, for a terminal and for Python: the same body, to be copied.
import { get } from "./api.js";
import { html, useState } from "./dom.js";
import { Copy } from "./parts.js";
import { useAnswer } from "./store.js";

const given = (body) => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined));

/** For a shell: within single quotes nothing means anything but a single quote. `token`: one is to be shown, from $TOKEN. */
function asCurl(path, body, token = false) {
  const quoted = JSON.stringify(given(body), null, 2).replaceAll("'", "'\\''");
  const shown = token ? `-H "Authorization: Bearer $TOKEN" ` : "";
  return `curl -H 'Content-Type: application/json' ${shown}${location.origin}${path} -d '${quoted}'`;
}

/** A value as Python writes it; JSON's texts are Python's too. */
function literal(value, indent = "    ") {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  const parts = Array.isArray(value)
    ? value.map((one) => literal(one, `${indent}    `))
    : Object.entries(given(value)).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, `${indent}    `)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return parts.length ? `${open}\n${parts.map((part) => `${indent}    ${part},\n`).join("")}${indent}${close}` : open + close;
}

const asPython = (path, body, token = false) => `${token ? "import os\n\n" : ""}import requests

answer = requests.post(
    "${location.origin}${path}",
${token ? `    headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},\n` : ""}    json=${literal(body)},
)
print(answer.json())
`;

const WAYS = [["curl", asCurl], ["Python", asPython]];
/** Whether a program has to show a token, which a browser that is signed in has not to. */
const useTokenNeeded = () => useAnswer((signal) => get("/api/session", signal), []).value?.token_required ?? false;

export function AsCode({ path, body }) {
  const [way, setWay] = useState("curl");
  const token = useTokenNeeded();
  const text = WAYS.find(([name]) => name === way)[1](path, body, token);
  return html`<div class="as-code">
    <div class="actions" role="group" aria-label="The same as">
      ${WAYS.map(([name]) => html`<button type="button" class="quiet" aria-pressed=${name === way} onClick=${() => setWay(name)}>${name}</button>`)}
      <${Copy} text=${text} />
    </div>
    <pre class="log code" tabindex="0" role="region" aria-label=${`The same as ${way}`}>${text}</pre>
    ${token && html`<p class="soft">A token of this server is taken from the variable <code>TOKEN</code>.</p>`}
  </div>`;
}

/** The same without a place to read it. */
export function CopyAsCode({ path, body }) {
  const token = useTokenNeeded();
  return WAYS.map(([name, write]) => html`<${Copy} text=${write(path, body, token)} label=${`Copy as ${name}`} />`);
}
