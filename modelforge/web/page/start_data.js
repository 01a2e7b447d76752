// What is learned: the datasets of a training that is being asked for, one or several.
import { html, useRef, useState } from "./dom.js";
import { count } from "./format.js";
import { idOf } from "./parameters.js";
import { Card, Field, Typed } from "./parts.js";
import { Problems } from "./preflight_panel.js";
import { Statistics, TokenPreview } from "./token_preview.js";
import { UploadBox } from "./upload_box.js";

const ELSEWHERE = " another ";
const SEEN = ["model_name", "task", "strategy", "provider", "max_seq_length", "truncation", "doc_stride", "max_completion_length"];

export function DataSection({ asked, set, problems, make, details, there, again, answer }) {
  const several = Array.isArray(asked.dataset) ? asked.dataset : null;
  const taken = ({ filename }) => {
    again();
    set((now) => ({ dataset: withUpload(now.dataset, filename) }));
  };
  return html`<${Card} title="Data">
    ${several ? html`<${Several} datasets=${several} there=${there} taken=${answer.value?.records?.datasets} onChange=${(dataset) => set({ dataset })} />`
      : html`<${DatasetChoice} id=${idOf("dataset")} label="Dataset" value=${asked.dataset} there=${there} onChange=${(dataset) => set({ dataset })} />`}
    ${!several && asked.dataset && html`<button type="button" class="quiet" onClick=${() => set({ dataset: [{ dataset: asked.dataset }, { dataset: null }] })}>Train on another one too</button>`}
    <${UploadBox} onTaken=${taken} />
    <${Problems} of=${problems.get("dataset")} make=${make} />
    ${details && html`<p>${several && html`<bdi>${details.filename}</bdi>: `}<code>${details.format}</code>, ${count(details.num_examples)} records${details.warning_count > 0 && html`, <a href=${`#/datasets/${encodeURIComponent(details.filename)}`}>${count(details.warning_count)} warnings</a>`}</p>
      <${AsSeen} asked=${asked} details=${details} />`}
  <//>`;
}

/** What is asked for once a file is there: it, or it too, in the first place that is empty. */
function withUpload(dataset, filename) {
  if (!Array.isArray(dataset)) return filename;
  const empty = dataset.findIndex((one) => one.dataset === null);
  return empty < 0 ? [...dataset, { dataset: filename }] : dataset.with(empty, { ...dataset[empty], dataset: filename });
}

/** One that was uploaded, or another by its place. */
function DatasetChoice({ id, label, value, there, onChange }) {
  const [elsewhere, setElsewhere] = useState(false);
  const isOurs = there?.some((one) => one.filename === value);
  const typed = !isOurs && (elsewhere || (value !== null && there !== null));
  const choose = (event) => {
    const to = event.target.value;
    setElsewhere(to === ELSEWHERE);
    onChange(to === ELSEWHERE || to === "" ? null : to);
  };
  const [chosenId, placeId] = typed ? [`chosen-${id}`, id] : [id, `place-${id}`];
  return html`<${Field} id=${chosenId} label=${label}>
      <select id=${chosenId} value=${typed ? ELSEWHERE : (value ?? "")} onChange=${choose}>
        <option value="">${there?.length === 0 ? "None is there yet" : "Choose one"}</option>
        ${(there ?? []).toReversed().map((one) => html`<option key=${one.filename} value=${one.filename}>${one.filename} (${count(one.num_examples)} records)</option>`)}
        <option value=${ELSEWHERE}>Another: of the hub, or a file on the server</option>
      </select>
    <//>
    ${typed && html`<${Field} id=${placeId} label="Its place" hint="hf://owner/name, or the absolute path of a file under a dataset root">
      <${Typed} id=${placeId} value=${value ?? ""} onTyped=${(text) => onChange(text || null)} /><//>`}`;
}

/** Datasets that are trained on together. `taken`: of each, how many records that gives, once it is known. */
function Several({ datasets, there, taken, onChange }) {
  const add = useRef(null);
  const keys = useRef([]); // a row's own, that goes with it: what it shows is not that of the one before
  const made = useRef(0);
  while (keys.current.length < datasets.length) keys.current.push((made.current += 1));
  const put = (at, settings) => onChange(datasets.with(at, { ...datasets[at], ...settings }));
  const drop = (at) => {
    const left = datasets.toSpliced(at, 1);
    keys.current.splice(at, 1);
    add.current?.focus(); // the button that was pressed goes with its row
    const isPlain = left.length === 1 && Object.values({ ...left[0], dataset: undefined }).every((value) => value === undefined);
    onChange(left.length === 0 ? null : isPlain ? left[0].dataset : left);
  };
  const number = (text) => (text === "" ? undefined : Number(text));
  return html`<p class="soft">They are trained on together, in the ratio of their weights and records.</p>
    ${datasets.map((one, at) => {
      const id = at ? `${idOf("dataset")}-${at}` : idOf("dataset");
      const gives = taken?.length === datasets.length ? taken[at] : null;
      return html`<fieldset class="one-of-several" key=${keys.current[at]}>
        <legend class="unseen">Dataset ${at + 1}</legend>
        <${DatasetChoice} id=${id} label=${`Dataset ${at + 1}`} value=${one.dataset} there=${there} onChange=${(dataset) => put(at, { dataset })} />
        <div class="fields">
          <${Field} id=${`${id}-weight`} label="Weight" hint="0.5: half of its records; 2: each of them twice">
            <${Typed} id=${`${id}-weight`} type="number" step="any" min="0" placeholder="1" value=${one.weight ?? ""} onTyped=${(text) => put(at, { weight: number(text) })} /><//>
          <${Field} id=${`${id}-most`} label="Records at most" hint=${gives ? `It gives ${count(gives.taken)} of its ${count(gives.records)} records.` : ""}>
            <${Typed} id=${`${id}-most`} type="number" min="1" placeholder="all" value=${one.max_samples ?? ""} onTyped=${(text) => put(at, { max_samples: number(text) })} /><//>
        </div>
        <button type="button" class="quiet" onClick=${() => drop(at)}>Leave out dataset ${at + 1}</button>
      </fieldset>`;
    })}
    <button type="button" ref=${add} onClick=${() => onChange([...datasets, { dataset: null }])}>Add a dataset</button>`;
}

/** Opened when it is wanted: a process with the model's tokenizer reads the records. */
function AsSeen({ asked, details }) {
  const [open, setOpen] = useState(false);
  const seen = Object.fromEntries(SEEN.filter((name) => asked[name] !== undefined && asked[name] !== null).map((name) => [name, asked[name]]));
  const suits = details.tasks.includes(asked.task) && details.strategies.includes(asked.strategy);
  return html`<details class="group" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>As the model reads it: tokens, lengths, what is cut</summary>
    ${open && suits && html`<${Statistics} filename=${details.filename} seen=${seen} /><${TokenPreview} filename=${details.filename} seen=${seen} />`}
  </details>`;
}
