// How long records are, as bars; what lies beyond the limit is cut, and drawn so.
import { html } from "./dom.js";
import { count, share } from "./format.js";

const WIDTH = 400;
const HEIGHT = 120;
const NAMES = {
  text: "Texts", source: "What is read", target: "What is written", window: "Questions with their contexts",
  chosen: "Prompts with the better answer", rejected: "Prompts with the worse answer", prompt: "Prompts",
};

/** `lengths`: of one kind of sequence, as the statistics of a dataset have it. */
export function Histogram({ lengths }) {
  const { histogram, quantiles, limit, count: all, truncated, truncated_share: cut } = lengths;
  const { edges, counts } = histogram;
  const most = Math.max(1, ...counts);
  const [from, to] = [edges[0], edges.at(-1)];
  const x = (tokens) => ((tokens - from) / Math.max(1e-9, to - from)) * WIDTH;
  const name = NAMES[lengths.sequence] ?? lengths.sequence;
  const told = `${name}: from ${count(quantiles.min)} to ${count(quantiles.max)} tokens, half of them up to ${count(quantiles.p50)}; ` +
    (truncated ? `${count(truncated)} of ${count(all)} are longer than ${count(limit)} tokens` : `none is longer than ${count(limit)}`);
  return html`<figure class="histogram">
    <figcaption><strong>${name}</strong> <span class=${truncated ? "error-word" : "soft"}>${truncated ? `${count(truncated)} (${share(cut)}) are cut at ${count(limit)} tokens` : `none is cut at ${count(limit)} tokens`}</span></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${told}>
      ${counts.map((value, index) => {
        const height = (value / most) * (HEIGHT - 4);
        const [left, right] = [x(edges[index]), x(edges[index + 1])];
        return html`<rect class=${edges[index] >= limit ? "beyond" : ""} x=${left} y=${HEIGHT - height} width=${Math.max(1, right - left - 1)} height=${height}><title>${`${count(Math.ceil(edges[index]))} to ${count(Math.floor(edges[index + 1]))} tokens: ${count(value)}`}</title></rect>`;
      })}
      ${limit > from && limit < to && html`<line x1=${x(limit)} x2=${x(limit)} y1="0" y2=${HEIGHT} />`}
    </svg>
    <div class="scale soft" aria-hidden="true"><span>${count(Math.round(from))}</span><span>median ${count(quantiles.p50)} · 95 % up to ${count(quantiles.p95)}</span><span>${count(Math.round(to))} tokens</span></div>
  </figure>`;
}
