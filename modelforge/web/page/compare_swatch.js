// How each of several jobs is drawn: in a colour and in dashes of its own.
import { html } from "./dom.js";

const DASHES = [[], [9, 4], [2, 3], [10, 3, 2, 3], [16, 5], [5, 2], [2, 6], [10, 3, 2, 3, 2, 3]];

/** How a job is drawn: by its place among those that are compared, in a colour and in dashes. */
export const drawn = (index) => ({ colour: `--c${index + 1}`, dash: DASHES[index] });

export function Swatch({ index }) {
  const { colour, dash } = drawn(index);
  return html`<svg width="44" height="10" aria-hidden="true"><line x1="0" y1="5" x2="44" y2="5" stroke-width="2.5" stroke-dasharray=${dash.join(" ")} style=${{ stroke: `var(${colour})` }} /></svg>`;
}
