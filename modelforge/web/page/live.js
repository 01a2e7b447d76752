// One WebSocket follows all jobs: it goes on from the last position, over sleep, a lost network and another server.
import { signedOut } from "./api.js";
import { Store } from "./store.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;
const ANOTHER_LOG_AFTER = 3;

/** `connecting` at first, then `live`, or `lost` since a moment. */
export const connection = new Store({ state: "connecting", since: Date.now() });

export class Follower {
  #position = null;
  #listeners = new Set();
  #failures = 0;
  #socket = null;
  #timer = null;

  /** Begin; `onBegin` is called when there is nothing to go on from: everything has to be read anew. */
  constructor(onBegin) {
    this.onBegin = onBegin;
    for (const name of ["online", "pageshow"]) addEventListener(name, () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
    signedOut.subscribe((is) => is || this.#hurry());
  }

  /** Be told of every message, once; the function that is returned ends it. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  open() {
    clearTimeout(this.#timer);
    const after = this.#position === null ? "" : `&after=${this.#position}`;
    const address = new URL(`/ws/training?records=true${after}`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onopen = () => {
      this.#failures = 0;
      connection.set({ state: "live", since: Date.now() });
    };
    socket.onmessage = (event) => this.#take(JSON.parse(event.data));
    socket.onclose = () => this.#lost(socket);
  }

  #take(message) {
    if (message.type === "Snapshot") {
      this.#position = message.position;
      this.onBegin();
      return;
    }
    if (message.position <= this.#position) return;
    this.#position = message.position;
    for (const listener of [...this.#listeners]) listener(message);
  }

  async #lost(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (connection.get().state !== "lost") connection.set({ state: "lost", since: Date.now() });
    this.#failures += 1;
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (this.#failures - 1)) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#again(), wait);
  }

  async #again() {
    if (this.#socket) return;
    if (this.#failures >= ANOTHER_LOG_AFTER) {
      // A browser does not say why. Where the server answers, it is another log, which has no such position; or it
      // wants to know who asks.
      const answer = await fetch("/api/training_status").catch(() => null);
      if (answer?.status === 401) signedOut.set(true);
      if (answer?.ok) this.#position = null;
    }
    if (!this.#socket) this.open();
  }

  #hurry() {
    if (this.#socket || connection.get().state !== "lost") return;
    clearTimeout(this.#timer);
    this.#again();
  }
}
