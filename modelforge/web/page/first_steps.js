// An empty server: the example, the built-in model, and a first training, a click each.
import { get, post, upload } from "./api.js";
import { html, useEffect, useState } from "./dom.js";
import { count } from "./format.js";
import { Action, Title } from "./parts.js";
import { go } from "./router.js";
import { UploadBox } from "./upload_box.js";

const EXAMPLE = "three_lines.jsonl";
export const BUILT_IN = "smollm2-135m-instruct";
const TRAINING = {
  task: "text-generation", model_name: BUILT_IN, dataset: EXAMPLE, strategy: "sft", output_name: "three-lines",
};

export function FirstSteps() {
  const [dataset, setDataset] = useState(null);
  const [model, setModel] = useState(false);
  useEffect(() => {
    get("/api/datasets").then(({ datasets }) => setDataset(datasets.findLast(({ filename }) => filename === EXAMPLE) ?? null)).catch(() => {});
  }, []);
  const take = async () => {
    const answer = await fetch(`/page/${EXAMPLE}`);
    setDataset(await upload(new File([await answer.blob()], EXAMPLE), {}, () => {}));
  };
  const start = async () => {
    const { job_id: jobId } = await post("/api/start_training", { ...TRAINING, dataset: dataset.filename });
    go("jobs", jobId);
  };
  const step = dataset === null ? 1 : model ? 3 : 2;
  return html`
    <${Title} name="Welcome to ModelForge" />
    <p class="lead">Fine-tune a language model on this machine, in three clicks. Nothing leaves it.</p>
    <ol class="steps">
      <${Step} number=${1} now=${step} title="A dataset" done=${dataset && html`${dataset.filename}: ${count(dataset.num_examples)} records`}>
        <p>The example: 150 questions, each answered in three lines.</p>
        <${Action} kind="primary" onClick=${take}>Use the example<//>
        <p>Or records of your own:</p>
        <${UploadBox} onTaken=${({ filename }) => go("start", null, { dataset: filename })} />
      <//>
      <${Step} number=${2} now=${step} title="A small model" done=${model && "SmolLM2 135M Instruct"}>
        <p>SmolLM2 with 135 million parameters is built in, and learns on a processor. It is fetched once, with the first training.</p>
        <button type="button" class="primary" onClick=${() => setModel(true)}>Use it</button>
      <//>
      <${Step} number=${3} now=${step} title="The first training">
        <p>It learns to answer in three lines. Without a GPU this takes some minutes; you watch it here.</p>
        <${Action} kind="primary" onClick=${start}>Start<//>
      <//>
    </ol>`;
}

function Step({ number, now, title, done, children }) {
  return html`<li class=${`step ${number === now ? "now" : number < now ? "done" : "later"}`} aria-current=${number === now ? "step" : undefined}>
    <h2><span class="number" aria-hidden="true">${number < now ? "✓" : number}</span>${title}</h2>
    ${number < now ? html`<p>${done}</p>` : number === now ? children : null}
  </li>`;
}
