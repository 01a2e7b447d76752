// A word by the browser when a job ends, for who allowed it.
import { figure } from "./format.js";
import { ended } from "./jobs.js";
import { link } from "./router.js";
import { Store } from "./store.js";

const SAYS = { completed: "completed", failed: "failed", stopped: "was stopped" };

/** `default`, `granted`, `denied`, or `missing` where the browser has no such thing here. */
export const permission = new Store("Notification" in window ? Notification.permission : "missing");

export async function askPermission() {
  permission.set(await Notification.requestPermission());
}

/** Tell of every end from now on; a page that is looked at needs no word. */
export function watchEnds() {
  ended.subscribe(({ job_id, status, error, loss }) => {
    if (permission.get() !== "granted" || !document.hidden) return;
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
