// The request that a form makes, for a terminal and for a program: the same body, to be copied.
import { html, useState } from "./dom.js";
import { Copy } from "./parts.js";

const PATH = "/api/start_training";

export function asCurl(body) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `curl -H 'Content-Type: application/json' ${location.origin}${PATH} -d '${quoted}'`;
}

/** A value as Python writes it; JSON's texts are Python's too. */
function literal(value, indent = "    ") {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  const parts = Array.isArray(value)
    ? value.map((one) => literal(one, `${indent}    `))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, `${indent}    `)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return parts.length ? `${open}\n${parts.map((part) => `${indent}    ${part},\n`).join("")}${indent}${close}` : open + close;
}

export const asPython = (body) => `import requests

job = requests.post(
    "${location.origin}${PATH}",
    json=${literal(body)},
).json()
print(job)
`;

const WAYS = [["curl", asCurl], ["Python", asPython]];

export function AsCode({ body }) {
  const [way, setWay] = useState("curl");
  const text = WAYS.find(([name]) => name === way)[1](body);
  return html`<div class="as-code">
    <div class="actions" role="group" aria-label="The same as">
      ${WAYS.map(([name]) => html`<button type="button" class="quiet" aria-pressed=${name === way} onClick=${() => setWay(name)}>${name}</button>`)}
      <${Copy} text=${text} />
    </div>
    <pre class="log code" tabindex="0" role="region" aria-label=${`The same as ${way}`}>${text}</pre>
  </div>`;
}
