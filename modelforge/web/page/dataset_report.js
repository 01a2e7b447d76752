// What the check of a dataset found: errors and warnings, by line and field.
import { html } from "./dom.js";
import { count } from "./format.js";

function Findings({ of, all, label }) {
  return html`<div class="table line-errors" role="region" aria-label=${label} tabindex="0"><table>
    <thead><tr><th class="number">Line</th><th>Field</th><th>What</th></tr></thead>
    <tbody>${of.map((one) => html`<tr><td class="number">${count(one.line)}</td><td><bdi>${one.field ?? ""}</bdi></td><td><bdi>${one.message}</bdi></td></tr>`)}</tbody>
  </table>
  ${all > of.length && html`<p class="soft">The first ${count(of.length)} of ${count(all)}.</p>`}</div>`;
}

/** `report`: as `validation` of an upload or of a refusal has it, or the warnings of a dataset that is there. */
export function Report({ report }) {
  const { errors = [], error_count: wrong = 0, warnings = [], warning_count: odd = 0 } = report ?? {};
  return html`
    ${errors.length > 0 && html`<p class="found"><strong>${count(wrong)} ${wrong === 1 ? "error" : "errors"}</strong></p><${Findings} of=${errors} all=${wrong} label="Errors" />`}
    ${warnings.length > 0 && html`<details class="warnings"><summary>${count(odd)} ${odd === 1 ? "warning" : "warnings"}: look before you train on it</summary><${Findings} of=${warnings} all=${odd} label="Warnings" /></details>`}`;
}
