// Which view is shown stands behind the # of the address: links are links, and going back goes back.
import { Store } from "./store.js";

/** `{ view, name, values }` of `#/view/name?value=…`. */
export const place = new Store(read());

function read() {
  const [path, values] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...names] = path.split("/");
  return { view, name: decoded(names.join("/")) || null, values: new URLSearchParams(values) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

addEventListener("hashchange", () => place.set(read()));

/** The address of a view. */
export function link(view, name, values) {
  const query = values ? `?${new URLSearchParams(values)}` : "";
  return `#/${view}${name === undefined || name === null ? "" : `/${encodeURIComponent(name)}`}${query}`;
}

export const go = (...to) => {
  location.hash = link(...to);
};
