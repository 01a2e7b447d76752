// The addresses that hear of ends of jobs, and how far each was told.
import { get, path, post } from "./api.js";
import { html, useState } from "./dom.js";
import { count, since } from "./format.js";
import { Action, Card, Listing } from "./parts.js";
import { useAnswer } from "./store.js";

const COLUMNS = [["Name", "head name"], ["Address", "wide"], ["Last delivery"], ["Given up", "number"], ["Test", "act"]];
const TRIED = "fine_tuning.job.succeeded";

export function Webhooks() {
  const { value, again } = useAnswer((signal) => get("/v1/webhook_endpoints?limit=100", signal), []);
  const [tried, setTried] = useState({}); // what each endpoint answered to the last test
  if (!value?.data.length) return null; // none, or not for who asks
  const test = (endpoint) => async () => {
    setTried((now) => ({ ...now, [endpoint.id]: undefined }));
    const answer = await post(path`/v1/webhook_endpoints/${endpoint.id}/test`, { event_type: endpoint.event_types[0] ?? TRIED });
    setTried((now) => ({ ...now, [endpoint.id]: `It answered ${answer.status_code}` }));
    again();
  };
  return html`<${Card} title="Webhooks"><${Listing} columns=${COLUMNS} rows=${value.data.map((one) => [one.id, [
    html`<bdi class="few">${one.name}</bdi>`, html`<bdi class="few">${one.url}</bdi>`, told(one.modelforge.last_delivery), count(one.modelforge.undelivered),
    html`<${Action} onClick=${test(one)}>Send a test<//> <span role="status">${tried[one.id]}</span>`,
  ]])} /><//>`;
}

const told = (delivery) => (delivery ? `${delivery.job_id}, ${since(delivery.at)}${delivery.status_code ? `: ${delivery.status_code}` : ""}` : "none yet");
