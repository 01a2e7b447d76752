// By which model, and how: sections of a training that is being asked for.
import { get } from "./api.js";
import { html, useState } from "./dom.js";
import { BUILT_IN } from "./first_steps.js";
import { STRATEGIES, TASKS, bytes } from "./format.js";
import { idOf } from "./parameters.js";
import { Card, Field, Typed } from "./parts.js";
import { Problems } from "./preflight_panel.js";
import { useAnswer } from "./store.js";

const ELSEWHERE = " another ";
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
