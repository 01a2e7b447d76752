// The addresses that hear of ends of jobs, and how far each was told.
import { get, path, post } from "./api.js";
import { html } from "./dom.js";
import { count, since } from "./format.js";
import { Action, Card } from "./parts.js";
import { useAnswer } from "./store.js";

const TRIED = "fine_tuning.job.succeeded";

export function Webhooks() {
  const { value, again } = useAnswer((signal) => get("/v1/webhook_endpoints?limit=100", signal), []);
  if (!value?.data.length) return null; // none, or not for who asks
  const test = (endpoint) => async () => {
    await post(path`/v1/webhook_endpoints/${endpoint.id}/test`, { event_type: endpoint.event_types[0] ?? TRIED });
    again();
  };
  return html`<${Card} title="Webhooks"><div class="table"><table>
    <thead><tr><th>Name</th><th>Address</th><th>Last delivery</th><th class="number">Given up</th><th><span class="unseen">Test</span></th></tr></thead>
    <tbody>${value.data.map((one) => html`<tr key=${one.id}>
      <td><bdi>${one.name}</bdi></td><td><bdi>${one.url}</bdi></td><td>${told(one.modelforge.last_delivery)}</td>
      <td class="number">${count(one.modelforge.undelivered)}</td>
      <td><${Action} onClick=${test(one)}>Send a test<//></td>
    </tr>`)}</tbody>
  </table></div><//>`;
}

const told = (delivery) => (delivery ? `${delivery.job_id}, ${since(delivery.at)}${delivery.status_code ? `: ${delivery.status_code}` : ""}` : "none yet");
