// What a trainer wrote, as it grows.
import { getText, path, query } from "./api.js";
import { html, useEffect, useRef, useState } from "./dom.js";

const EVERY = 2000;
const KEPT = 200_000; // characters
// Without what moves a terminal's cursor or colours it: it is text here.
const CONTROLS = /\u001b\[[0-9;?]*[ -/]*[@-~]|[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g;

/** The last line over which a bar was drawn is the line. */
const settled = (text) => text.replace(CONTROLS, "").replace(/\r+\n/g, "\n").split("\n").map((line) => line.slice(line.lastIndexOf("\r") + 1)).join("\n");

export function LogTail({ jobId, attempt, goesOn, lines = null }) {
  const [text, setText] = useState("");
  const place = useRef(null);
  const begun = useRef(false); // whether its end was shown once: from then on who reads further up is left there
  useEffect(() => {
    const control = new AbortController();
    let [offset, timer, all] = [0, 0, ""];
    const read = async () => {
      try {
        for (;;) {
          const part = await getText(query(path`/api/jobs/${jobId}/logs`, { offset, attempt }), control.signal);
          const next = Number(part.headers.get("X-Next-Offset"));
          all = (all + part.text).slice(-KEPT);
          if (!part.text || next === offset) break;
          offset = next;
        }
        setText(settled(all));
      } catch (problem) {
        if (control.signal.aborted) return;
        if (problem.status === 404) setText("");
      }
      if (goesOn) timer = setTimeout(read, EVERY);
    };
    read();
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [jobId, attempt, goesOn]);
  useEffect(() => {
    const box = place.current;
    if (!box || !text) return;
    if (!begun.current || box.scrollHeight - box.scrollTop - box.clientHeight < 200) box.scrollTop = box.scrollHeight;
    begun.current = true;
  }, [text]);
  const shown = lines ? text.trimEnd().split("\n").slice(-lines).join("\n") : text;
  return html`<pre class="log" ref=${place} tabindex="0" role="region" aria-label="What the trainer wrote">${shown || "Nothing yet."}</pre>`;
}
