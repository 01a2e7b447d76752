// Who is asked in the playground: a trained model, what it was trained from, or a base by its name.
import { html, useId } from "./dom.js";
import { BUILT_IN } from "./first_steps.js";
import { TASKS, shortName } from "./format.js";
import { Field } from "./parts.js";
import { TEXT } from "./playground_chat.js";

const BY_NAME = "n:";

/** A choice, `{ key, name, task }`: `m:3` is a model, `b:3` its base, `n:` a base of a name. */
export const chosen = (key) => ({ key, name: BUILT_IN, task: TEXT });

/** What is sent of a choice, what it is called, and what it is for; null where there is no such model. */
export function sideOf({ key, name, task }, models) {
  if (key === BY_NAME) return { label: shortName(name), task, fields: { base_model: name, task } };
  const model = models.find(({ id }) => id === Number(key.slice(2)));
  if (!model) return null;
  if (key.startsWith("b:")) return { label: `${shortName(model.base_model)}, untuned`, task: model.task, fields: { model_id: model.id, base_model: true } };
  return { label: model.name, task: model.task, fields: { model_id: model.id } };
}

/** The newest model, or the built-in one. */
export const first = (models) => chosen(models.length ? `m:${models.at(-1).id}` : BY_NAME);

/** What stands well beside a choice: its base, or the newest model for its task. */
export function beside({ key }, models, task) {
  if (key.startsWith("m:")) return chosen(`b:${key.slice(2)}`);
  const other = models.findLast((model) => model.task === task);
  return other ? chosen(`m:${other.id}`) : { ...chosen(BY_NAME), task };
}

/** One model for each base and task. */
function bases(models) {
  return [...new Map(models.map((model) => [`${model.base_model}\n${model.task}`, model])).values()];
}

export function ModelChoice({ label, choice, models, onChoice, only = null }) {
  const [id, nameId, taskId] = [useId(), useId(), useId()];
  const fit = models.filter(({ task }) => only === null || task === only);
  const known = bases(fit);
  // A base that was asked for by another model of it is the same one.
  const own = choice.key.startsWith("b:") && !known.some((model) => choice.key === `b:${model.id}`) && fit.find((model) => choice.key === `b:${model.id}`);
  const others = own ? known.map((model) => (model.base_model === own.base_model && model.task === own.task ? own : model)) : known;
  return html`<div class="asked-model">
    <${Field} id=${id} label=${label}>
      <select id=${id} value=${choice.key} onChange=${(event) => onChoice({ ...choice, key: event.target.value, task: only ?? choice.task })}>
        ${fit.length > 0 && html`<optgroup label="Trained models">${fit.toReversed().map((model) => html`<option value=${`m:${model.id}`}>${model.name} (${model.id})</option>`)}</optgroup>
          <optgroup label="What they were trained from">${others.toReversed().map((model) => html`<option value=${`b:${model.id}`}>${shortName(model.base_model)}, untuned</option>`)}</optgroup>`}
        <optgroup label="Others"><option value=${BY_NAME}>A base by its name</option></optgroup>
      </select>
    <//>
    ${choice.key === BY_NAME && html`
      <${Field} id=${nameId} label="Name of the base" hint="The built-in one, a name on the hub, or a path.">
        <input id=${nameId} type="text" aria-describedby=${`${nameId}-hint`} autocomplete="off" spellcheck=${false} value=${choice.name} onInput=${(event) => onChoice({ ...choice, name: event.target.value })} />
      <//>
      ${only === null && html`<${Field} id=${taskId} label="For">
        <select id=${taskId} value=${choice.task} onChange=${(event) => onChoice({ ...choice, task: event.target.value })}>${Object.entries(TASKS).map(([task, name]) => html`<option value=${task}>${name}</option>`)}</select>
      <//>`}`}
  </div>`;
}
