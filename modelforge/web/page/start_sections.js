// What is learned, by which model, and how: the sections of a training that is being asked for.
import { get } from "./api.js";
import { html, useState } from "./dom.js";
import { BUILT_IN } from "./first_steps.js";
import { STRATEGIES, TASKS, bytes, count } from "./format.js";
import { idOf } from "./parameters.js";
import { Card, Field, Typed } from "./parts.js";
import { Problems } from "./preflight_panel.js";
import { useAnswer } from "./store.js";
import { Statistics, TokenPreview } from "./token_preview.js";
import { UploadBox } from "./upload_box.js";

const ELSEWHERE = " another ";
const SEEN = ["model_name", "task", "strategy", "provider", "max_seq_length", "truncation", "doc_stride", "max_completion_length"];
const IS_FOR = {
  sft: "It learns to answer as your records do. The one to begin with.",
  qlora: "The same, on weights squeezed into 4 bits: for a model that would not fit the memory otherwise.",
  dpo: "It learns from pairs of a better and a worse answer, and needs no reward model.",
  rlhf: "It writes answers and is rewarded for good ones: by functions that check them, or by a reward model.",
};
const NEEDS = {
  sft: "records with an answer, or texts", qlora: "records with an answer, or texts",
  dpo: "preferences: a prompt with a chosen and a rejected answer", rlhf: "prompts, with answers or preferences",
};
const TASK_IS = {
  "text-generation": "It writes: answers, chats, texts.", summarization: "It makes a long text short.",
  "extractive-question-answering": "It finds the answer in a text, and marks it.",
};

export function DataSection({ asked, set, problems, make, details, there, again }) {
  const [elsewhere, setElsewhere] = useState(false);
  const isList = Array.isArray(asked.dataset);
  const isOurs = there?.some((one) => one.filename === asked.dataset);
  const typed = !isList && (elsewhere || (asked.dataset !== null && there !== null && !isOurs));
  const choose = (event) => {
    const to = event.target.value;
    setElsewhere(to === ELSEWHERE);
    set({ dataset: to === ELSEWHERE || to === "" ? null : to });
  };
  const taken = (answer) => {
    again();
    setElsewhere(false);
    set({ dataset: answer.filename });
  };
  return html`<${Card} title="Data">
    ${isList && html`<p><bdi>${asked.dataset.map((one) => `${one.dataset}${one.weight === undefined || one.weight === 1 ? "" : ` × ${one.weight}`}`).join(", ")}</bdi>
      <button type="button" class="quiet" onClick=${() => set({ dataset: null })}>Choose one instead</button></p>`}
    ${!isList && html`<${Field} id=${typed ? "chosen-dataset" : idOf("dataset")} label="Dataset">
      <select id=${typed ? "chosen-dataset" : idOf("dataset")} value=${typed ? ELSEWHERE : (asked.dataset ?? "")} onChange=${choose}>
        <option value="">${there?.length === 0 ? "None is there yet" : "Choose one"}</option>
        ${(there ?? []).toReversed().map((one) => html`<option key=${one.filename} value=${one.filename}>${one.filename} (${count(one.num_examples)} records)</option>`)}
        <option value=${ELSEWHERE}>Another: of the hub, or a file on the server</option>
      </select>
    <//>`}
    ${typed && html`<${Field} id=${idOf("dataset")} label="Its place" hint="hf://owner/name, or the absolute path of a file under a dataset root">
      <${Typed} id=${idOf("dataset")} value=${asked.dataset ?? ""} onTyped=${(text) => set({ dataset: text || null })} /><//>`}
    <${UploadBox} onTaken=${taken} />
    <${Problems} of=${problems.get("dataset")} make=${make} />
    ${details && html`<p><code>${details.format}</code>, ${count(details.num_examples)} records${details.warning_count > 0 && html`, <a href=${`#/datasets/${encodeURIComponent(details.filename)}`}>${count(details.warning_count)} warnings</a>`}</p>
      <${AsSeen} asked=${asked} details=${details} />`}
  <//>`;
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

export function ModelSection({ asked, set, problems, make, answer }) {
  const models = useAnswer((signal) => get("/api/models", signal), []).value?.models ?? null;
  const [elsewhere, setElsewhere] = useState(false);
  const own = models?.some((one) => String(one.id) === asked.model_name);
  const typed = elsewhere || (models !== null && asked.model_name !== BUILT_IN && !own);
  const choose = (event) => {
    const to = event.target.value;
    setElsewhere(to === ELSEWHERE);
    set({ model_name: to === ELSEWHERE ? null : to });
  };
  return html`<${Card} title="Model">
    <div class="fields">
      <${Field} id=${typed ? "chosen-model" : idOf("model_name")} label="Base">
        <select id=${typed ? "chosen-model" : idOf("model_name")} value=${typed ? ELSEWHERE : asked.model_name} onChange=${choose}>
          <option value=${BUILT_IN}>${BUILT_IN} (built in)</option>
          ${models?.length > 0 && html`<optgroup label="Trained here">${models.toReversed().map((one) => html`<option key=${one.id} value=${String(one.id)}>${one.id}: ${one.name}</option>`)}</optgroup>`}
          <option value=${ELSEWHERE}>Another: of the hub, or a folder</option>
        </select>
      <//>
      ${typed && html`<${Field} id=${idOf("model_name")} label="Its name" hint="As owner/name on the hub, or an absolute path under a model root">
        <${Typed} id=${idOf("model_name")} value=${asked.model_name ?? ""} onTyped=${(text) => set({ model_name: text || null })} /><//>`}
      <${Field} id=${idOf("output_name")} label="Name of what comes of it" hint="Letters, digits, . _ and -">
        <${Typed} id=${idOf("output_name")} maxlength="100" value=${asked.output_name ?? ""} placeholder="my-…-finetuned" onTyped=${(text) => set({ output_name: text || undefined })} /><//>
    </div>
    <${Fits} answer=${answer} />
    ${["model_name", "output_name"].map((field) => html`<${Problems} of=${problems.get(field)} make=${make} />`)}
  <//>`;
}

/** The preflight's word on the model and this machine. */
function Fits({ answer: { value } }) {
  const memory = value?.memory;
  if (!memory || memory.required_bytes === null) return null;
  const fits = memory.required_bytes <= memory.available_bytes;
  return html`<p role="status" class=${fits ? "fits" : "error-word"}>${fits ? "✓ It fits" : "It does not fit"}: ${bytes(memory.required_bytes)} are needed, and ${bytes(memory.available_bytes)} are free ${memory.device === "gpu" ? "on the GPU" : "on this machine"}.</p>`;
}

export function StrategySection({ asked, set, problems, make, details }) {
  const cannot = (strategy) => details !== null && !details.strategies.includes(strategy);
  return html`<${Card} title="Task and strategy">
    <${Choices} name="task" legend="Task" names=${TASKS} isFor=${TASK_IS} chosen=${asked.task} set=${set}
      why=${(task) => (details !== null && !details.tasks.includes(task) ? `Not of records of the format ${details.format}.` : null)} />
    <${Problems} of=${problems.get("task")} make=${make} />
    <${Choices} name="strategy" legend="Strategy" names=${STRATEGIES} isFor=${IS_FOR} chosen=${asked.strategy} set=${set}
      why=${(strategy) => (cannot(strategy) ? `It needs ${NEEDS[strategy]}; this dataset has the format ${details.format}.` : null)} />
    <${Problems} of=${problems.get("strategy")} make=${make} />
  <//>`;
}

/** A card each; `why`: why one cannot be chosen, or null. */
function Choices({ name, legend, names, isFor, chosen, set, why }) {
  return html`<fieldset class="choices"><legend>${legend}</legend>
    ${Object.entries(names).map(([value, title], index) => {
      const reason = why(value);
      const id = index === 0 ? idOf(name) : `${idOf(name)}-${value}`;
      return html`<label key=${value} class=${`choice ${value === chosen ? "chosen" : ""} ${reason ? "cannot" : ""}`} for=${id}>
        <input type="radio" name=${name} id=${id} value=${value} aria-labelledby=${`${id}-name`} aria-describedby=${`${id}-for`} checked=${value === chosen} disabled=${reason !== null} onChange=${() => set({ [name]: value })} />
        <span><strong id=${`${id}-name`}>${title}</strong><span id=${`${id}-for`}><small>${isFor[value]}</small>${reason && html`<small class="reason">${reason}</small>`}</span></span>
      </label>`;
    })}
  </fieldset>`;
}
