// One WebSocket follows all jobs: it goes on from the last position, over sleep, a lost network and another server.
import { signedOut } from "./api.js";
import { Store } from "./store.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;
const QUIET = 20_000; // ms without a word, after which a socket that was slept over is not trusted
const TICK = 10_000;
const SLEPT = 60_000;
const SIGNED_OUT = 1008; // as the server closes what a revoked or expired token has open

/** `connecting` at first, then `live`, or `lost` since a moment; `ever`: it was live before. */
export const connection = new Store({ state: "connecting", since: Date.now(), ever: false });

export class Follower {
  #position = null;
  #digest = null; // { position, digest } of a record that was seen: another log has another one there
  #listeners = new Set();
  #failures = 0;
  #socket = null;
  #timer = null;
  #heard = 0;

  /** Begin; `onBegin` is called when there is nothing to go on from: everything has to be read anew. */
  constructor(onBegin) {
    this.onBegin = onBegin;
    for (const name of ["online", "pageshow"]) addEventListener(name, () => this.#hurry());
    for (const name of ["visibilitychange", "resume"]) {
      document.addEventListener(name, () => document.hidden || this.#hurry());
    }
    signedOut.subscribe((is) => is || this.#hurry());
    let last = Date.now();
    setInterval(() => {
      if (Date.now() - last > SLEPT && !document.hidden) this.#hurry();
      last = Date.now();
    }, TICK);
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
    this.#heard = Date.now();
    // One that was given up may still have something to say: the other one says it too.
    const ifCurrent = (act) => (event) => socket === this.#socket && act(event);
    socket.onopen = ifCurrent(() => {
      this.#failures = 0;
      this.#heard = Date.now();
      connection.set({ state: "live", since: Date.now(), ever: true });
      signedOut.set(false);
    });
    socket.onmessage = ifCurrent((event) => this.#take(JSON.parse(event.data)));
    socket.onclose = ifCurrent(({ code }) => this.#lost(code));
  }

  #take(message) {
    this.#heard = Date.now();
    if (message.type === "Snapshot") {
      this.#position = message.position;
      this.#digest = null;
      this.#learnDigest(message.position);
      this.onBegin();
      return;
    }
    if (message.position <= this.#position) return;
    this.#position = message.position;
    this.#digest = { position: message.position, digest: message.record.digest };
    for (const listener of [...this.#listeners]) listener(message);
  }

  /** A snapshot has no digest: that of its record is read, unless a message came first. */
  async #learnDigest(position) {
    const answer = await recordAt(position);
    if (this.#digest === null && answer.digest) this.#digest = { position, digest: answer.digest };
  }

  #lost(code) {
    this.#socket = null;
    this.#tellLost();
    if (code === SIGNED_OUT) this.#again();
    else this.#wait();
  }

  #tellLost() {
    if (connection.get().state !== "lost") connection.set({ ...connection.get(), state: "lost", since: Date.now() });
  }

  #wait() {
    this.#tellLost();
    clearTimeout(this.#timer);
    this.#failures += 1;
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (this.#failures - 1)) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#again(), wait);
  }

  /** Go on from the last position, if it is still the same log: a browser does not say why a socket was refused. */
  async #again() {
    clearTimeout(this.#timer);
    const seen = this.#digest;
    const answer = await recordAt(seen?.position ?? 0);
    if (this.#socket) return; // somebody else was faster
    if (answer.status === 401) signedOut.set(true);
    if (answer.status === 0 || answer.status === 401) {
      this.#wait();
      return;
    }
    const isSame = seen ? answer.digest === seen.digest : this.#position === 0;
    if (answer.status === 200 && !isSame) this.#position = null;
    this.open();
  }

  /** There may be a connection again; and one that was slept over may be none, though nobody said so. */
  #hurry() {
    const { state } = connection.get();
    if (state === "connecting") return;
    if (this.#socket && Date.now() - this.#heard < QUIET) return;
    const old = this.#socket;
    this.#socket = null;
    old?.close();
    this.#again();
  }
}

/** How the server answers for one record: `status`, 0 where it does not; and the record's digest, if there is one. */
async function recordAt(position) {
  try {
    const answer = await fetch(`/api/events?after=${Math.max(0, position - 1)}&limit=1`);
    const [record] = answer.ok ? (await answer.json()).events : [];
    return { status: answer.status, digest: record?.position === position ? record.digest : null };
  } catch {
    return { status: 0, digest: null };
  }
}
