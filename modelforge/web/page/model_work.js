// What can be made of a trained model, each by a job: a form with what it takes, and its refusals at the fields.
import { get, path, post } from "./api.js";
import { html, useId, useState } from "./dom.js";
import { Field, Refusal } from "./parts.js";
import { go } from "./router.js";
import { useAnswer } from "./store.js";

const QUANTIZATIONS = [
  "f16", "bf16", "f32", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
  "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
];
const OWN = new Set(["f16", "bf16", "f32", "q8_0"]);
const quantization = (name) => [name, OWN.has(name) ? name : `${name}, by llama-quantize`];

/** `fields`: `{ name, label, hint, kind, options, of }`; `of`: whether there is such a field, by the values so far. */
const WORKS = {
  merge: {
    title: "Merge", does: "Merge", is: ({ kind }) => kind === "adapter",
    says: "Puts the adapter into the weights of its base: a model of its own, which needs no base.",
    fields: [
      { name: "output_name", label: "Name of the merged model", hint: "Left empty: this one's, and “-merged”." },
      { name: "dtype", label: "Type of the weights", kind: "select", options: [["", "that of the base"], ["float32", "float32"], ["bfloat16", "bfloat16"], ["float16", "float16"]] },
    ],
  },
  export: {
    title: "Export", does: "Export", is: () => true,
    says: "Copies the model out and reads it again. GGUF is for llama.cpp and Ollama.",
    fields: [
      { name: "format", label: "As", kind: "select", options: [["folder", "a folder"], ["tar", "a tar archive"], ["zip", "a zip archive"], ["gguf", "GGUF"]] },
      { name: "quantization", label: "Quantization", kind: "select", options: QUANTIZATIONS.map(quantization), of: ({ format }) => format === "gguf" },
      { name: "path", label: "To", hint: "A path on the server's machine under a --model-root. Left empty: a place in its data directory." },
    ],
  },
  push: {
    title: "Push", does: "Push to the hub", is: () => true,
    says: "Uploads the model to the Hugging Face hub, with the server's own token.",
    fields: [
      { name: "repo_id", label: "Repository", hint: "As me/my-model." },
      { name: "private", label: "Private", kind: "check" },
    ],
  },
  evaluate: {
    title: "Evaluate", does: "Evaluate", is: () => true,
    says: "Judges the model on a dataset; its figures come to stand here.",
    fields: [
      { name: "dataset", label: "Dataset", kind: "dataset" },
      { name: "max_samples", label: "Records at most", kind: "number", hint: "Left empty: all of them." },
      { name: "base_model", label: "Judge its base instead", kind: "check" },
    ],
  },
};
const BEGUN = { format: "folder", quantization: "f16", private: true, queue: true };

export function ModelWork({ model }) {
  const [chosen, setChosen] = useState(null);
  return html`<div class="work">
    <div class="actions" role="group" aria-label="What to make of it">
      ${Object.entries(WORKS).filter(([, work]) => work.is(model)).map(([name, work]) => html`<button type="button" aria-expanded=${chosen === name} class=${chosen === name ? "chosen" : ""} onClick=${() => setChosen(chosen === name ? null : name)}>${work.title}</button>`)}
    </div>
    ${chosen ? html`<${WorkForm} key=${chosen} model=${model} name=${chosen} />` : html`<p class="soft">Each is a job: it waits its turn, shows how far it is, and can be stopped.</p>`}
  </div>`;
}

function WorkForm({ model, name }) {
  const work = WORKS[name];
  const [values, setValues] = useState(BEGUN);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const fields = work.fields.filter((field) => field.of?.(values) ?? true);
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    const set = [...fields.map((field) => field.name), "queue"].map((each) => [each, values[each]]);
    const body = Object.fromEntries(set.filter(([, value]) => value !== undefined && value !== ""));
    try {
      const { job_id: jobId } = await post(path`/api/models/${model.id}/${name}`, body);
      go("jobs", jobId);
    } catch (refused) {
      setProblem(refused);
      setBusy(false);
    }
  };
  const isTold = fields.some((field) => field.name === problem?.field);
  return html`<form onSubmit=${send} noValidate aria-label=${work.title}>
    <p class="soft">${work.says}</p>
    ${fields.map((field) => html`<${WorkField} key=${field.name} field=${field} value=${values[field.name]} problem=${problem?.field === field.name ? problem : null} onValue=${(value) => setValues({ ...values, [field.name]: value })} />`)}
    <label class="check"><input type="checkbox" checked=${values.queue} onChange=${(event) => setValues({ ...values, queue: event.target.checked })} /> Let it wait while another job runs</label>
    ${!isTold && html`<${Refusal} problem=${problem} />`}
    <div><button class="primary" disabled=${busy} aria-busy=${busy}>${work.does}</button></div>
  </form>`;
}

function WorkField({ field, value, problem, onValue }) {
  const id = useId();
  const said = problem && `${problem.message}. ${problem.detail}`;
  const about = field.hint ? `${id}-hint` : undefined;
  const heard = (event) => onValue(event.target.value);
  if (field.kind === "check") {
    return html`<label class="check"><input type="checkbox" checked=${value ?? false} onChange=${(event) => onValue(event.target.checked)} /> ${field.label}</label>
      ${said && html`<p class="wrong-word" role="alert">${said}</p>`}`;
  }
  const shared = { id, "aria-describedby": about, "aria-invalid": problem ? "true" : undefined };
  return html`<${Field} id=${id} label=${field.label} hint=${field.hint} problem=${said}>
    ${field.kind === "select" ? html`<select ...${shared} value=${value ?? field.options[0][0]} onChange=${heard}>${field.options.map(([key, words]) => html`<option value=${key}>${words}</option>`)}</select>`
      : field.kind === "dataset" ? html`<${DatasetSelect} shared=${shared} value=${value} onValue=${onValue} />`
      : field.kind === "number" ? html`<input ...${shared} inputmode="numeric" value=${value ?? ""} onInput=${(event) => onValue(/^\d+$/.test(event.target.value) ? Number(event.target.value) : event.target.value)} />`
      : html`<input ...${shared} type="text" autocomplete="off" spellcheck=${false} value=${value ?? ""} onInput=${heard} />`}
  <//>`;
}

function DatasetSelect({ shared, value, onValue }) {
  const { value: found } = useAnswer((signal) => get("/api/datasets", signal), []);
  return html`<select ...${shared} value=${value ?? ""} onChange=${(event) => onValue(event.target.value)}>
    <option value="">Choose one</option>
    ${(found?.datasets ?? []).map(({ filename }) => html`<option value=${filename}>${filename}</option>`)}
  </select>`;
}
