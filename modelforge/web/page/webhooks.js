// The addresses that hear of ends of jobs, and how far each was told.
import { get, path, post } from "./api.js";
import { html } from "./dom.js";
import { count, since } from "./format.js";
import { Action, Card, Listing } from "./parts.js";
import { useAnswer } from "./store.js";

const COLUMNS = [["Name", "head"], ["Address", "wide"], ["Last delivery"], ["Given up", "number"], ["Test", "act"]];
const TRIED = "fine_tuning.job.succeeded";

export function Webhooks() {
  const { value, again } = useAnswer((signal) => get("/v1/webhook_endpoints?limit=100", signal), []);
  if (!value?.data.length) return null; // none, or not for who asks
  const test = (endpoint) => async () => {
    await post(path`/v1/webhook_endpoints/${endpoint.id}/test`, { event_type: endpoint.event_types[0] ?? TRIED });
    again();
  };
  return html`<${Card} title="Webhooks"><${Listing} columns=${COLUMNS} rows=${value.data.map((one) => [one.id, [
    html`<bdi class="few">${one.name}</bdi>`, html`<bdi class="few">${one.url}</bdi>`, told(one.modelforge.last_delivery), count(one.modelforge.undelivered),
    html`<${Action} onClick=${test(one)}>Send a test<//>`,
  ]])} /><//>`;
}

const told = (delivery) => (delivery ? `${delivery.job_id}, ${since(delivery.at)}${delivery.status_code ? `: ${delivery.status_code}` : ""}` : "none yet");
