// The records of a dataset, a page at a time, all or those with a text.
import { get, path, query } from "./api.js";
import { html, useEffect, useState } from "./dom.js";
import { count } from "./format.js";
import { Card, Empty, Refusal } from "./parts.js";
import { useAnswer } from "./store.js";

const PAGE = 25;
const AFTER_TYPING = 300;
const LONG = 400; // characters

export function RecordTable({ filename, revision, total }) {
  const [typed, setTyped] = useState("");
  const [search, setSearch] = useState("");
  const [offsets, setOffsets] = useState([0]);
  useEffect(() => {
    const timer = setTimeout(() => {
      if (typed.trim() === search) return;
      setSearch(typed.trim());
      setOffsets([0]);
    }, AFTER_TYPING);
    return () => clearTimeout(timer);
  }, [typed, search]);
  const offset = offsets.at(-1);
  const { value, problem, busy } = useAnswer(
    (signal) => get(query(path`/api/datasets/${filename}/preview`, { limit: PAGE, offset, search, revision }), signal),
    [filename, revision, search, offset],
  );
  const next = value?.next_offset ?? null;
  return html`<${Card} title="Records" actions=${html`<label>Search <input type="search" maxlength="200" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label>`}>
    <${Refusal} problem=${problem} />
    <div aria-busy=${busy} class=${busy ? "stale" : ""}>${value && html`<${Records} records=${value.records} search=${search} />`}</div>
    <div class="actions pages">
      <button type="button" disabled=${offsets.length < 2} onClick=${() => setOffsets(offsets.slice(0, -1))}>Earlier</button>
      <button type="button" disabled=${next === null} onClick=${() => setOffsets([...offsets, next])}>${value && search && value.records.length < PAGE && next !== null ? "Search on" : "Later"}</button>
      <span class="soft" role="status">${value && told(value, search, offset, next, total)}</span>
    </div>
  <//>`;
}

function told({ records }, search, offset, next, total) {
  if (search) return `${count(records.length)} found in records ${count(offset + 1)} to ${count(next ?? total)} of ${count(total)}`;
  return records.length ? `Records ${count(offset + 1)} to ${count(offset + records.length)} of ${count(total)}` : "";
}

function Records({ records, search }) {
  if (records.length === 0) return html`<${Empty}>No record has it here.<//>`;
  const columns = [...new Set(records.flatMap(({ record }) => Object.keys(record)))];
  return html`<div class="table records-table" role="region" aria-label="Records" tabindex="0"><table>
    <thead><tr><th class="number">Line</th>${columns.map((name) => html`<th><bdi>${name}</bdi></th>`)}</tr></thead>
    <tbody>${records.map(({ line, record }) => html`<tr key=${line}>
      <td class="number">${count(line)}</td>
      ${columns.map((name) => html`<td>${Object.hasOwn(record, name) && html`<${Value} value=${record[name]} search=${search} />`}</td>`)}
    </tr>`)}</tbody>
  </table></div>`;
}

const isTurn = (one) => one !== null && typeof one === "object" && typeof (one.content ?? one.value) === "string";

/** A text as it is, a conversation turn by turn, and anything else as its JSON. */
function Value({ value, search }) {
  if (Array.isArray(value) && value.length > 0 && value.every(isTurn)) {
    return html`<dl class="turns">${value.map((turn) => html`<div><dt><bdi>${String(turn.role ?? turn.from ?? "")}</bdi></dt><dd><${Text} text=${turn.content ?? turn.value} search=${search} /></dd></div>`)}</dl>`;
  }
  return html`<${Text} text=${typeof value === "string" ? value : JSON.stringify(value)} search=${search} />`;
}

function Text({ text, search }) {
  const [whole, setWhole] = useState(false);
  const at = search ? text.toLowerCase().indexOf(search.toLowerCase()) : -1;
  const isLong = text.length > LONG + 80;
  const from = isLong && !whole && at > LONG / 2 ? at - LONG / 4 : 0;
  const shown = isLong && !whole ? text.slice(from, from + LONG) : text;
  return html`<bdi class="value">${from > 0 && "… "}<${Marked} text=${shown} search=${search} />${isLong && !whole && "…"}</bdi>
    ${isLong && html`<button type="button" class="quiet" aria-expanded=${whole} onClick=${() => setWhole(!whole)}>${whole ? "Less" : `All ${count(text.length)} characters`}</button>`}`;
}

function Marked({ text, search }) {
  if (!search) return text;
  const parts = text.split(new RegExp(`(${search.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")})`, "giu"));
  return parts.map((part, index) => (index % 2 ? html`<mark>${part}</mark>` : part));
}
