// The parameters of a training: the few that people change, and all others folded away by what they are about.
import { html, useEffect, useState } from "./dom.js";
import { Field, Typed } from "./parts.js";
import { Problems } from "./preflight_panel.js";

const FEW = ["num_train_epochs", "max_steps", "learning_rate", "per_device_train_batch_size", "max_seq_length", "lora_r", "eval_split"];
const GROUPS = [
  ["Adapter", ["lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "use_rslora", "use_dora", "init_lora_weights", "loraplus_lr_ratio", "use_lora", "weight_dtype"]],
  ["Optimizer and schedule", ["optim", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "weight_decay", "max_grad_norm", "gradient_accumulation_steps", "seed"]],
  ["Memory and speed", ["gradient_checkpointing", "bf16", "fp16", "attn_implementation", "torch_compile", "liger", "num_processes", "use_4bit", "use_8bit", "bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "use_nested_quant", "provider"]],
  ["Records", ["truncation", "packing", "group_by_length", "neftune_noise_alpha", "doc_stride", "columns", "encoding"]],
  ["Evaluation and checkpoints", ["validation_dataset", "eval_steps", "per_device_eval_batch_size", "early_stopping_patience", "logging_steps", "save_steps", "save_total_limit", "max_restarts", "report_to"]],
  ["Preferences and rewards", ["beta", "loss_type", "rl_algorithm", "num_generations", "max_completion_length", "reward_functions", "reward_model", "reward_learning_rate", "use_vllm"]],
];
const ELSEWHERE = new Set(["task", "model_name", "dataset", "strategy", "queue", "output_name"]);
const LABELS = {
  num_train_epochs: "Epochs", max_steps: "Steps at most", learning_rate: "Learning rate", per_device_train_batch_size: "Batch size",
  max_seq_length: "Longest example, in tokens", lora_r: "Rank of the adapter", eval_split: "Held-out share",
};
const MEANINGS = {
  provider: "who trains: `huggingface`, or `unsloth` where it is installed, with less memory",
  columns: "fields, and the columns that they are read from: `{\"input\": \"question\"}`",
  encoding: "of the dataset's text, where it is not found out: as `windows-1252`",
  validation_dataset: "another dataset to evaluate on, in place of a held-out share",
  max_restarts: "how often a job is tried again by itself, where its trainer was killed or its machine failed",
  metadata: "notes that are shown with the job: `{\"idea\": \"shorter answers\"}`",
};
/** Where nothing is chosen for who leaves it alone. */
const NOTHING = new Set([
  "early_stopping_patience", "reward_model", "reward_functions", "neftune_noise_alpha", "loraplus_lr_ratio", "modules_to_save",
  "columns", "encoding", "validation_dataset", "metadata",
]);
const SHORT = 60; // characters: of a long meaning so much is shown at first

const groupsOf = (schema) => {
  const placed = new Set([...FEW, ...GROUPS.flatMap(([, names]) => names)]);
  const others = Object.keys(schema).filter((name) => !placed.has(name) && !ELSEWHERE.has(name));
  return [...GROUPS, ["Others", others]].map(([title, names]) => [title, names.filter((name) => name in schema)]).filter(([, names]) => names.length);
};

export const idOf = (field) => `asked-${field}`;

/** `schema`: the fields of a body, as openapi.json has them; `problems`: what was refused of each, by its name. */
export function Parameters({ schema, asked, set, problems, make }) {
  const one = (name) => html`<${Parameter} key=${name} name=${name} schema=${schema[name]} value=${asked[name]} set=${set} problems=${problems.get(name)} make=${make} />`;
  return html`
    <div class="fields">${FEW.filter((name) => name in schema).map(one)}</div>
    ${groupsOf(schema).map(([title, names]) => html`<${Group} key=${title} title=${title} names=${names} asked=${asked} problems=${problems}>${names.map(one)}<//>`)}`;
}

function Group({ title, names, asked, problems, children }) {
  const wrong = names.some((name) => problems.has(name));
  const own = names.filter((name) => asked[name] !== undefined).length;
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (wrong) setOpen(true);
  }, [wrong]);
  return html`<details class="group" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${title} ${own > 0 && html`<span class="badge">${own} set</span>`} <span class="soft names">${names.join(", ")}</span></summary>
    ${open && html`<div class="fields">${children}</div>`}
  </details>`;
}

/** Words with code between backticks. */
const Worded = ({ text }) => text.split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));

function Parameter({ name, schema, value, set, problems, make }) {
  const id = idOf(name);
  const meaning = schema.description ?? MEANINGS[name] ?? "";
  return html`<div class="parameter">
    <${Field} id=${id} label=${LABELS[name] ?? html`<code>${name}</code>`}>
      <${Input} id=${id} name=${name} schema=${schema} value=${value} set=${set} wrong=${Boolean(problems)} />
      ${value !== undefined && html`<button type="button" class="quiet undo" onClick=${() => set({ [name]: undefined })}>Leave it alone<span class="unseen">: ${name}</span></button>`}
      <${Meaning} id=${id} text=${LABELS[name] ? `\`${name}\`: ${meaning}` : meaning} />
    <//>
    <${Problems} of=${problems} make=${make} />
  </div>`;
}

/** Long ones open when they are asked for. */
function Meaning({ id, text }) {
  const [whole, setWhole] = useState(false);
  const end = text.length <= 2 * SHORT ? -1 : text.indexOf(" ", SHORT);
  if (end < 0 || whole) return html`<small id=${`${id}-hint`}><${Worded} text=${text} /></small>`;
  return html`<small id=${`${id}-hint`}><${Worded} text=${text.slice(0, end)} /> <button type="button" class="quiet more" aria-label="The whole meaning" onClick=${() => setWhole(true)}>…</button></small>`;
}

/** What a schema takes, but for null: which is to leave it alone. */
const typeOf = (schema) => {
  const kinds = (schema.anyOf ?? [schema]).filter((one) => one.type !== "null");
  return kinds.length === 1 ? { ...schema, ...kinds[0], enum: kinds[0].enum?.filter((one) => one !== null) } : { type: "any" };
};

/** What holds where a field is left alone. */
function left(name, schema) {
  if (schema.default === null || schema.default === undefined) return NOTHING.has(name) ? "none" : "left to the trainer";
  return typeof schema.default === "string" ? schema.default : JSON.stringify(schema.default);
}

function Input({ id, name, schema, value, set, wrong }) {
  const type = typeOf(schema);
  const shared = { id, "aria-describedby": `${id}-hint`, "aria-invalid": wrong ? "true" : undefined };
  const put = (next) => set({ [name]: next });
  if (type.enum || type.type === "boolean") {
    const choices = type.enum ?? [true, false];
    return html`<select ...${shared} value=${value === undefined ? "" : JSON.stringify(value)} onChange=${(event) => put(event.target.value === "" ? undefined : JSON.parse(event.target.value))}>
      <option value="">${left(name, schema)}</option>
      ${choices.map((one) => html`<option value=${JSON.stringify(one)}>${String(one)}</option>`)}
    </select>`;
  }
  if (type.type === "integer" || type.type === "number") {
    return html`<${NumberInput} shared=${shared} type=${type} value=${value} put=${put} placeholder=${left(name, schema)} />`;
  }
  return html`<${JsonInput} shared=${shared} value=${value} put=${put} placeholder=${left(name, schema)} isText=${type.type === "string"} />`;
}

/** Counts as it is typed; "0.0" stays on its way to 0.0005. */
function NumberInput({ shared, type, value, put, placeholder }) {
  const [draft, setDraft] = useState(null);
  const typed = (event) => {
    setDraft(event.target.value);
    put(event.target.value === "" ? undefined : Number(event.target.value));
  };
  return html`<input ...${shared} type="number" step="any" min=${type.minimum} max=${type.maximum} value=${draft ?? value ?? ""} placeholder=${placeholder} onInput=${typed} onBlur=${() => setDraft(null)} />`;
}

/** A text as it is; of all else its JSON, and a name without quotes. */
function JsonInput({ shared, value, put, placeholder, isText }) {
  const read = (text) => {
    if (isText) return text;
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  };
  const shown = value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
  return html`<${Typed} ...${shared} value=${shown} placeholder=${placeholder} onTyped=${(text) => put(text === "" ? undefined : read(text))} />`;
}
