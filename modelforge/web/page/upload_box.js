// Records of one's own: files are dropped or chosen, sent and checked; what is wrong with one is said by its lines.
import { upload } from "./api.js";
import { Report } from "./dataset_report.js";
import { html, useEffect, useId, useRef, useState } from "./dom.js";
import { count, share } from "./format.js";
import { Progress, Refusal } from "./parts.js";

const PROPOSED = /columns=(\{.*\}) with the file/;

/** The columns by which the server would read a file that it refused, if it said some. */
function proposed(problem) {
  const texts = [problem.detail, ...(problem.validation?.errors ?? []).map((one) => one.message)];
  return texts.map((text) => PROPOSED.exec(text)?.[1]).find(Boolean) ?? null;
}

/** `onTaken` hears what the server answered of each file. */
export function UploadBox({ onTaken }) {
  const id = useId();
  const [sending, setSending] = useState(null); // { name, sent }
  const [refused, setRefused] = useState(null); // { file, problem }
  const [taken, setTaken] = useState(null);
  const [over, setOver] = useState(false);
  const busy = useRef(false);
  const send = async (files, fields = {}) => {
    if (busy.current) return;
    busy.current = true;
    setRefused(null);
    setTaken(null);
    for (const file of files) {
      setSending({ name: file.name, sent: 0 });
      try {
        const answer = await upload(file, fields, (sent) => setSending({ name: file.name, sent }));
        setTaken(answer);
        onTaken(answer);
      } catch (problem) {
        setRefused({ file, problem });
        break;
      }
    }
    busy.current = false;
    setSending(null);
  };
  // Wherever it is dropped: a browser would leave the page, and show the file.
  useEffect(() => {
    const drag = (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      setOver(true);
    };
    const drop = (event) => {
      setOver(false);
      if (event.dataTransfer.files.length === 0) return;
      event.preventDefault();
      send([...event.dataTransfer.files]);
    };
    const leave = (event) => event.relatedTarget === null && setOver(false);
    const heard = { dragover: drag, drop, dragleave: leave };
    for (const [name, hear] of Object.entries(heard)) document.addEventListener(name, hear);
    return () => {
      for (const [name, hear] of Object.entries(heard)) document.removeEventListener(name, hear);
    };
  });
  const choose = (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // the same file may be chosen again, once it is mended
    send(files);
  };
  return html`<div class=${`drop ${over ? "over" : ""}`}>
    <input type="file" class="unseen" id=${id} disabled=${sending !== null} onChange=${choose} />
    <p><strong>Drop a file of records here</strong>, or <label class="button" for=${id}>choose one</label></p>
    <p class="soft">JSON lines, JSON, CSV or Parquet, also packed. Every record is checked before anything is kept.</p>
    <div aria-live="polite">
      ${sending && html`<${Sending} ...${sending} />`}
      ${taken && html`<p class="taken">✓ <bdi>${taken.filename}</bdi>: ${count(taken.num_examples)} records of the format <code>${taken.format}</code></p>`}
    </div>
    ${taken && html`<${Ignored} columns=${taken.columns} /><${Report} report=${taken.validation} />`}
    ${refused && html`<${Refused} ...${refused} onColumns=${(columns) => send([refused.file], { columns })} />`}
  </div>`;
}

function Sending({ name, sent }) {
  const all = sent >= 1;
  return html`<p><bdi>${name}</bdi>: ${all ? "every record is being checked …" : `${share(sent)} sent`}</p>
    <${Progress} value=${all ? null : sent * 100} label="How much of the file is sent" />`;
}

function Refused({ file, problem, onColumns }) {
  const columns = proposed(problem);
  return html`<p><bdi>${file.name}</bdi> was refused; nothing of it was kept.</p>
    <${Refusal} problem=${problem.validation ? { message: problem.message } : problem} />
    ${columns && html`<p><button type="button" onClick=${() => onColumns(columns)}>Read its columns as <bdi><code>${columns}</code></bdi></button></p>`}
    <${Report} report=${problem.validation} />`;
}

/** The fields that nothing is learned of. */
export const Ignored = ({ columns }) => columns?.ignored.length > 0 && html`<p class="soft">Not read: ${columns.ignored.map((name, index) => html`${index > 0 && ", "}<bdi><code>${name}</code></bdi>`)}</p>`;
