// A value that views follow.
import { useEffect, useState } from "./dom.js";

export class Store {
  #value;
  #listeners = new Set();

  constructor(value) {
    this.#value = value;
  }

  get() {
    return this.#value;
  }

  set(value) {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) listener(value);
  }

  /** Be told of every change; the function that is returned ends it. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** What `select` makes of a store's value, in a view that is drawn again when that changes. */
export function useStore(store, select = (value) => value) {
  const [, redraw] = useState(0);
  const selected = select(store.get());
  useEffect(() => {
    let seen = select(store.get());
    if (!Object.is(seen, selected)) redraw((n) => n + 1);
    return store.subscribe((value) => {
      const now = select(value);
      if (Object.is(now, seen)) return;
      seen = now;
      redraw((n) => n + 1);
    });
  }, [store]);
  return selected;
}

/** What a request answers: `{ value, problem, busy, again }`. It is asked anew when one of `inputs` changes. */
export function useAnswer(ask, inputs) {
  const [answer, setAnswer] = useState({ value: null, problem: null, busy: true });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    setAnswer((last) => ({ ...last, busy: true }));
    ask(control.signal).then(
      (value) => control.signal.aborted || setAnswer({ value, problem: null, busy: false }),
      (problem) => control.signal.aborted || setAnswer((last) => ({ ...last, problem, busy: false })),
    );
    return () => control.abort();
  }, [...inputs, round]);
  return { ...answer, again: () => setRound((n) => n + 1) };
}
