// The API, as every client has it. What it refuses is a Problem, which says what would work.
import { Store } from "./store.js";

/** Whether the server wants to know who asks, and does not. */
export const signedOut = new Store(false);

export class Problem extends Error {
  constructor(body, status) {
    super(body.error?.message ?? body.error); // under /v1 it has the shape of OpenAI's
    this.detail = body.detail ?? "";
    this.status = status;
    this.field = body.field ?? null;
    this.problems = body.problems ?? [];
    this.validation = body.validation ?? null;
  }
}

const UNREACHABLE = { error: "The server cannot be reached", detail: "This page goes on by itself once it answers." };

async function refusal(answer) {
  if (answer.status === 401) signedOut.set(true);
  const text = await answer.text();
  try {
    return new Problem(JSON.parse(text), answer.status);
  } catch {
    return new Problem({ error: `The answer was ${answer.status}`, detail: text.slice(0, 300) }, answer.status);
  }
}

async function ask(method, path, body, signal) {
  const headers = { Accept: "application/json, */*" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(UNREACHABLE, 0);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

export async function get(path, signal) {
  return (await ask("GET", path, undefined, signal)).json();
}

/** A text, and the answer's headers. */
export async function getText(path, signal) {
  const answer = await ask("GET", path, undefined, signal);
  return { text: await answer.text(), headers: answer.headers };
}

export async function post(path, body, signal) {
  return (await ask("POST", path, body, signal)).json();
}

export async function remove(path) {
  return (await ask("DELETE", path)).json();
}

/** A path with a query, less what is null. */
export function query(path, values) {
  const set = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const words = new URLSearchParams(set).toString();
  return words ? `${path}?${words}` : path;
}

/** A path of the API with names in it: path`/api/datasets/${name}`. */
export function path(texts, ...names) {
  return texts.reduce((made, text, index) => made + encodeURIComponent(names[index - 1]) + text);
}

/** Send a file as a dataset; `onSent` hears the share that has gone, from 0 to 1. */
export function upload(file, fields, onSent) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nobody how much has gone
    request.open("POST", "/api/upload_dataset");
    request.upload.onprogress = (event) => event.lengthComputable && onSent(event.loaded / event.total);
    request.onerror = () => reject(new Problem(UNREACHABLE, 0));
    request.onload = async () => {
      const answer = new Response(request.responseText, { status: request.status });
      if (answer.ok) resolve(await answer.json());
      else reject(await refusal(answer));
    };
    request.send(form);
  });
}

/** The server-sent events that answer a POST, one after another: `{ event, data }`. */
export async function* streamed(path, body, signal) {
  const answer = await ask("POST", path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const of = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (of("data") !== undefined) yield { event: of("event") ?? "message", data: JSON.parse(of("data")) };
    }
  }
}
