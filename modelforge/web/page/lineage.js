// Where a model comes from and what came of it, as a graph: base and data, the jobs, the models, exports and pushes.
import { html, useLayoutEffect, useMemo, useRef, useState } from "./dom.js";
import { STRATEGIES, bytes, count, shortName } from "./format.js";
import { isActive } from "./jobs.js";
import { link } from "./router.js";

const [WIDE, SMALL, HIGH] = [156, 112, 54]; // of a thing, of a job between two, and the height of both, in CSS pixels
const [ALONG, BESIDE] = [22, 14];
const SHOWN = 8;
const DELIVERED = { export: "Export", push: "Push" };

/**
 * `nodes`: `{ kind, title, sub, href, depth, lane }`, and `edges` between them. Depths are even for what there is, and
 * odd for the jobs that make it; a lane is a row beside.
 */
function graphOf(model, models, jobs) {
  const graph = { nodes: [], edges: [] };
  const add = (kind, depth, lane, title, sub, href = null) => {
    graph.nodes.push({ kind, depth, lane, title, sub, href });
    return graph.nodes.at(-1);
  };
  const join = (from, to) => graph.edges.push([from, to]);
  const byId = new Map(models.map((one) => [one.id, one]));
  const jobNode = (one, depth, lane) => {
    const isMerge = (one.merged_from ?? null) !== null;
    const title = isMerge ? "Merge" : one.strategy ? (STRATEGIES[one.strategy] ?? one.strategy) : "Training";
    return add("job", depth, lane, title, one.job_id, link("jobs", one.job_id));
  };
  const data = (one, depth, lane, job) => {
    if (!one.dataset || (one.merged_from ?? null) !== null) return;
    const { filename, revision, num_examples: records, parts } = one.dataset;
    const isListed = revision !== null && parts.length === 0;
    join(add("data", depth, lane, filename, `${count(records)} records`, isListed ? link("datasets", filename) : null), job);
  };
  const modelNode = (one, depth, lane) => add(
    one.id === model.id ? "model this" : "model", depth, lane, one.name,
    byId.has(one.id) ? `model ${one.id}, ${(one.merged_from ?? null) !== null ? "merged" : one.kind === "full" ? "whole" : one.kind}` : `model ${one.id}, deleted`,
    byId.has(one.id) ? link("models", one.id) : null,
  );
  /** What came of a model, below each other from a lane on; how many lanes that takes. */
  const below = (one, node, depth, lane) => {
    let used = 0;
    for (const child of models.filter(({ lineage }) => lineage[0]?.model_id === one.id)) {
      const job = jobNode(child, depth + 1, lane + used);
      join(node, job);
      data(child, depth, lane + used + 1, job);
      const made = modelNode(child, depth + 2, lane + used);
      join(job, made);
      const own = child.merged_from === null ? 2 : 1;
      used += Math.max(own, below(child, made, depth + 2, lane + used));
    }
    for (const job of jobs.filter((each) => each.source_model_id === one.id && isShown(each)).slice(0, SHOWN)) {
      const work = add("job", depth + 1, lane + used, DELIVERED[job.kind] ?? "Merge", isActive(job) ? "runs" : job.job_id, link("jobs", job.job_id));
      join(node, work);
      if (job.delivery) join(work, add("file", depth + 2, lane + used, ...delivered(job.delivery), link("jobs", job.job_id)));
      used += 1;
    }
    return Math.max(1, used);
  };
  const ancestors = model.lineage.toReversed().map((one) => byId.get(one.model_id) ?? { ...one, id: one.model_id });
  let last = add("base", 0, 0, shortName(model.lineage.at(-1)?.base_model ?? model.base_model), "base");
  [...ancestors, model].forEach((one, index) => {
    const job = jobNode(one, 2 * index + 1, 0);
    join(last, job);
    data(one, 2 * index, 1, job);
    last = modelNode(one, 2 * index + 2, 0);
    join(job, last);
  });
  below(model, last, 2 * ancestors.length + 2, 0);
  return graph;
}

const isShown = (job) => (job.kind in DELIVERED && job.status === "completed") || (job.kind in DELIVERED || job.kind === "merge") && isActive(job);

function delivered(delivery) {
  if (delivery.repo_id) return [delivery.repo_id, delivery.private ? "on the hub, private" : "on the hub"];
  const format = delivery.quantization ? `${delivery.format} ${delivery.quantization}` : delivery.format;
  return [shortName(delivery.path), `${format}, ${bytes(delivery.size_bytes)}`];
}

/** Where a node stands: from left to right, or, where there is no room for that, from top to bottom. */
function placed({ depth, lane }, upright) {
  if (upright) return { x: lane * (WIDE + BESIDE), y: depth * (HIGH + ALONG), width: WIDE };
  const x = Math.floor(depth / 2) * (WIDE + SMALL + 2 * ALONG) + (depth % 2) * (WIDE + ALONG);
  return { x, y: lane * (HIGH + BESIDE), width: depth % 2 ? SMALL : WIDE };
}

function edge(from, to, upright) {
  if (upright) {
    const [x1, y1, x2, y2] = [from.x + from.width / 2, from.y + HIGH, to.x + to.width / 2, to.y - 6];
    const middle = (y1 + y2) / 2;
    return `M${x1},${y1}C${x1},${middle} ${x2},${middle} ${x2},${y2}`;
  }
  const [x1, y1, x2, y2] = [from.x + from.width, from.y + HIGH / 2, to.x - 6, to.y + HIGH / 2];
  const middle = (x1 + x2) / 2;
  return `M${x1},${y1}C${middle},${y1} ${middle},${y2} ${x2},${y2}`;
}

export function Lineage({ model, models, jobs }) {
  const graph = useMemo(() => graphOf(model, models, jobs), [model, models, jobs]);
  const room = useRef(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const sized = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width));
    sized.observe(room.current);
    return () => sized.disconnect();
  }, []);
  const far = Math.max(...graph.nodes.map(({ depth }) => depth));
  const upright = width < placed({ depth: far, lane: 0 }, false).x + WIDE;
  const at = new Map(graph.nodes.map((node) => [node, placed(node, upright)]));
  const size = { width: Math.max(...[...at.values()].map((one) => one.x + one.width)) + 2, height: Math.max(...[...at.values()].map((one) => one.y)) + HIGH + 2 };
  return html`<div class="lineage" ref=${room} tabindex="0" role="region" aria-label="Lineage">
    <svg ...${size} viewBox=${`-1 -1 ${size.width} ${size.height}`} role="group" aria-label=${`Lineage of model ${model.id}: ${graph.nodes.length} parts, told in words below`}>
      <defs><marker id="arrow" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path class="head" d="M0,0L8,4L0,8Z" /></marker></defs>
      <g aria-hidden="true">${graph.edges.map(([from, to]) => html`<path class="edge" d=${edge(at.get(from), at.get(to), upright)} marker-end="url(#arrow)" />`)}</g>
      ${graph.nodes.map((node) => html`<${Node} node=${node} ...${at.get(node)} />`)}
    </svg>
    <details><summary>In words</summary><ul>${graph.edges.map(([from, to]) => html`<li><bdi>${from.title}</bdi> (${from.sub}) leads to <bdi>${to.title}</bdi> (${to.sub})</li>`)}</ul></details>
  </div>`;
}

function Node({ node, x, y, width }) {
  const said = html`<bdi>${node.title}</bdi><small>${node.sub}</small>`;
  const shared = { class: `node ${node.kind}`, title: node.title };
  return html`<foreignObject x=${x} y=${y} width=${width} height=${HIGH}>
    ${node.href ? html`<a ...${shared} href=${node.href} aria-current=${node.kind.endsWith("this") ? "page" : undefined}>${said}</a>` : html`<div ...${shared}>${said}</div>`}
  </foreignObject>`;
}
