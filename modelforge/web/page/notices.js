// A word by the browser when a job ends, for who allowed it.
import { figure } from "./format.js";
import { ended } from "./jobs.js";
import { link } from "./router.js";
import { Store } from "./store.js";

const [ASKS, LOOKED_AT] = ["Is a tab looked at?", "This one is"];
const ANSWERED = 500; // ms in which another tab says so
const SAYS = { completed: "completed", failed: "failed", stopped: "was stopped" };

/** `default`, `granted`, `denied`, or `missing` where the browser has no such thing here. */
export const permission = new Store("Notification" in window ? Notification.permission : "missing");

export async function askPermission() {
  permission.set(await Notification.requestPermission());
}

const tabs = new BroadcastChannel("tabs");
let answered = 0;

tabs.onmessage = ({ data }) => {
  if (data === LOOKED_AT) answered += 1;
  else if (!document.hidden) tabs.postMessage(LOOKED_AT);
};

async function isAnotherLookedAt() {
  const before = answered;
  tabs.postMessage(ASKS);
  await new Promise((done) => setTimeout(done, ANSWERED));
  return answered > before;
}

/** Tell of every end from now on; who looks at a page of this server needs no word. */
export function watchEnds() {
  ended.subscribe(async ({ job_id, status, error, loss }) => {
    if (permission.get() !== "granted" || !document.hidden || (await isAnotherLookedAt())) return;
    const body = error?.message ?? (loss === null || loss === undefined ? "" : `Last loss: ${figure(loss)}`);
    let word;
    try {
      word = new Notification(`${job_id} ${SAYS[status] ?? status}`, { body, tag: job_id, icon: "/page/icon.svg" });
    } catch {
      permission.set("missing"); // phones have them for service workers only
      return;
    }
    word.onclick = () => {
      window.focus();
      location.hash = link("jobs", job_id);
      word.close();
    };
  });
}
