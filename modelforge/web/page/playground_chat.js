// What was asked in the playground, and the answers as they come. It is kept when another view is shown.
import { Problem, streamed } from "./api.js";
import { Store } from "./store.js";

export const ADDRESS = "/api/playground/generate";
const ALTERNATIVES = 5;
const BROKEN = { error: "The answer broke off", detail: "The server did not come to its end. Ask again." };
export const TEXT = "text-generation";
export const READS = "extractive-question-answering";
export const BEGUN = {
  system: "", temperature: "0.7", top_p: "0.9", max_new_tokens: "256", seed: "", stop: "", probabilities: false,
};

/**
 * `[{ id, prompt, context, task, answers }]`. An answer is of one model: `{ label, body, text, tokens, state, problem,
 * done, milliseconds }`; its `state` is `coming`, `done`, `stopped` or `refused`.
 */
export const turns = new Store([]);
let asked = 0;
let control = new AbortController();

export const isComing = (all) => all.some(({ answers }) => answers.some(({ state }) => state === "coming"));

export const stop = () => control.abort();

export function clear() {
  stop();
  turns.set([]);
}

/** Ask each of `sides`, `{ label, task, fields }`, in place of the turn `from` and all after it, or as a new turn. */
export async function ask({ prompt, context }, sides, settings, from = null) {
  stop();
  control = new AbortController();
  const { signal } = control;
  const all = turns.get();
  const before = from === null ? all : all.slice(0, all.findIndex(({ id }) => id === from));
  const { task } = sides[0];
  asked += 1;
  const id = asked;
  const answers = sides.map(({ label, fields }, side) => ({
    label, text: "", tokens: [], state: "coming", problem: null, done: null, milliseconds: null,
    body: bodyOf({ task, fields, side, prompt, context, before, settings }),
  }));
  turns.set([...before, { id, prompt, context, task, answers }]);
  await Promise.all(answers.map((answer, side) => follow(id, side, answer, signal)));
}

/** What is sent for one answer: of a chat all that was said before, as this side answered it. */
function bodyOf({ task, fields, side, prompt, context, before, settings }) {
  if (task === READS) return { ...fields, prompt, context };
  const stops = settings.stop.split("\n").filter(Boolean).map((text) => text.replaceAll("\\n", "\n"));
  const sampling = {
    temperature: number(settings.temperature), top_p: number(settings.top_p),
    max_new_tokens: number(settings.max_new_tokens), seed: number(settings.seed),
    stop: stops.length ? stops : undefined, top_logprobs: settings.probabilities ? ALTERNATIVES : undefined,
  };
  if (task !== TEXT) return { ...fields, prompt, ...sampling };
  const said = before.filter((turn) => turn.task === TEXT && turn.answers[side]?.text).flatMap((turn) => [
    { role: "user", content: turn.prompt }, { role: "assistant", content: turn.answers[side].text },
  ]);
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  return { ...fields, messages: [...system, ...said, { role: "user", content: prompt }], ...sampling };
}

/** A number as it was typed; what is none is sent as it is, and refused by its name. */
const number = (text) => (text.trim() === "" ? undefined : Number.isFinite(Number(text)) ? Number(text) : text);

async function follow(id, side, answer, signal) {
  const begun = performance.now();
  let [now, frame] = [answer, 0];
  const show = () => {
    frame = 0;
    const put = (turn) => (turn.id === id ? { ...turn, answers: turn.answers.with(side, now) } : turn);
    turns.set(turns.get().map(put));
  };
  const take = (changes) => {
    now = { ...now, ...changes };
    frame ||= requestAnimationFrame(show);
  };
  try {
    for await (const { event, data } of streamed(ADDRESS, { ...answer.body, stream: true }, signal)) {
      if (event === "error") throw new Problem(data, data.status_code);
      if (event === "done") take({ text: data.generated_text, tokens: data.logprobs ?? [], done: data, state: "done" });
      else take({ text: now.text + data.text, tokens: data.logprobs ? [...now.tokens, ...data.logprobs] : now.tokens });
    }
    if (!now.done) throw new Problem(BROKEN, 0);
  } catch (error) {
    if (signal.aborted) take({ state: "stopped" });
    else take({ state: "refused", problem: error instanceof Problem ? error : new Problem(BROKEN, 0) });
  }
  now.milliseconds = now.done?.generation_time_ms ?? performance.now() - begun;
  cancelAnimationFrame(frame);
  show();
}
