// A chart of curves over steps, by uPlot; drawn again at most four times a second, and only where it is seen.
import { html, useEffect, useRef } from "./dom.js";
import { count, figure } from "./format.js";

const { uPlot } = window;
const sync = uPlot.sync("steps");
const linear = uPlot.paths.linear();
const NARROW = 480;
/** What the curves are over: what it is called, and how a value of it is written. */
export const STEPS = { name: "step", write: count, whole: true };
const WHOLE = [1, 2, 5].flatMap((each) => Array.from({ length: 10 }, (_, power) => each * 10 ** power)).sort((a, b) => a - b);
const EVERY = 250; // ms: a curve that grows faster is not seen to

/** One chart a frame, however many there are: each is drawn in a few milliseconds, all together would not be. */
const waiting = new Set();

function drawSoon(draw) {
  waiting.add(draw);
  if (waiting.size === 1) requestAnimationFrame(drawNext);
}

function drawNext() {
  const [draw] = waiting;
  if (!draw) return;
  waiting.delete(draw);
  if (waiting.size) requestAnimationFrame(drawNext);
  draw();
}

/** A line; where it has more points than there are pixels, the least and the greatest of each column of pixels. */
function line(plot, number, first, last) {
  const { left, width } = plot.bbox;
  if (last - first < 2 * width) return linear(plot, number, first, last);
  const [steps, values] = [plot.data[0], plot.data[number]];
  const { min, max } = plot.scales.x;
  const path = new Path2D();
  let [column, low, high] = [null, 0, 0];
  const end = () => {
    if (column === null) return;
    const [top, bottom] = [plot.valToPos(high, "y", true), plot.valToPos(low, "y", true)];
    path.lineTo(column, top);
    if (bottom - top > 1) path.lineTo(column, bottom);
  };
  for (let at = first; at <= last; at += 1) {
    const value = values[at];
    if (value === null) continue;
    const here = Math.round(left + ((steps[at] - min) / (max - min)) * width);
    if (here !== column) {
      end();
      [column, low, high] = [here, value, value];
    } else if (value < low) low = value;
    else if (value > high) high = value;
  }
  end();
  return { stroke: path, fill: null, clip: null, band: null, gaps: null, flags: 1 };
}

/** How large letters are, beside those of most screens: larger on very wide ones. */
const scale = () => parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function axes(width, axis) {
  const shared = { stroke: style("--soft"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false } };
  const large = scale();
  const font = `${12 * large}px system-ui, sans-serif`;
  return [
    { ...shared, font, size: 28 * large, space: (width < NARROW ? 60 : 80) * large, values: (_, splits) => splits.map(axis.write), ...(axis.whole ? { incrs: WHOLE } : {}) },
    { ...shared, font, size: 56 * large, values: (_, splits) => splits.map(figure) },
  ];
}

function options({ series, width, height, logarithmic, marks, axis }) {
  return {
    width,
    height,
    cursor: { sync: { key: sync.key }, points: { size: 6 }, drag: { x: true, y: false } },
    legend: { show: false },
    scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
    axes: axes(width, axis),
    series: [
      { label: axis.name },
      ...series.map((one) => ({
        label: one.label,
        stroke: style(one.colour),
        width: one.width ?? 2,
        dash: one.dash,
        alpha: one.faint ? 0.3 : 1,
        points: { ...(one.points === "sparse" ? {} : { show: one.points ?? false }), size: one.width === 1 ? 4 : 6, fill: style(one.colour) },
        spanGaps: true,
        paths: one.points === true ? uPlot.paths.points() : line,
      })),
    ],
    hooks: { drawClear: [(plot) => drawMarks(plot, marks())] },
  };
}

/** Vertical lines: where an attempt went on, or a checkpoint was saved. */
function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.setLineDash([4, 4]);
  for (const { step, colour } of marks) {
    const x = Math.round(plot.valToPos(step, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = style(colour);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function told(label, series, steps, data, axis) {
  const words = series.flatMap((one, index) => {
    if (one.unlisted) return [];
    const last = data[index].findLast((value) => value !== null);
    if (last === undefined) return `${one.label}: none`;
    return `${one.label} ${figure(last)}, from ${figure(data[index].find((value) => value !== null))}`;
  });
  return `${label}: ${words.join("; ")}; up to ${axis.name} ${axis.write(steps.at(-1) ?? 0)}`;
}

/**
 * Curves of one job or of several. `source`: what calls listeners when there is more, by its `subscribe`. `read`: gives
 * the steps, or what else `axis` says, and a column for each of `series`, `{ label, colour, faint, points, dash, unlisted }`.
 * `points`: true for points alone, "joined" for points on a line, "sparse" for those where there is room. `unlisted`: it stands in no legend.
 */
export function Chart({ label, source, series, read, height = 220, logarithmic = false, marks = () => [], axis = STEPS }) {
  const place = useRef(null);
  const legend = useRef(null);
  const shape = JSON.stringify([series, height, logarithmic, axis.name]);
  useEffect(() => {
    const root = place.current;
    let [plot, seen, timer, drawn] = [null, true, 0, 0];
    const draw = () => {
      const [steps, ...data] = read();
      drawn = steps.length ? performance.now() : -EVERY; // the first figures wait for nothing
      root.setAttribute("aria-label", told(label, series, steps, data, axis));
      tell(plot?.cursor.idx ?? null, steps, data);
      plot.setData([steps, ...data]);
    };
    const soon = () => {
      if (!seen || timer) return;
      timer = setTimeout(() => {
        timer = 0;
        drawSoon(draw);
      }, Math.max(0, EVERY - performance.now() + drawn));
    };
    const tell = (index, steps, data) => {
      series.forEach((one, number) => {
        let at = index ?? data[number].length - 1;
        while (at > 0 && data[number][at] === null) at -= 1; // several curves have no figure at each other's steps
        const place = legend.current?.children[number]?.lastChild;
        if (place) place.textContent = figure(data[number][at]);
      });
      const step = legend.current?.lastChild;
      if (step) step.textContent = index === null ? "" : `${axis.name} ${axis.write(steps[index])}`;
    };
    const begin = () => {
      plot?.destroy();
      const made = options({ series, width: root.clientWidth, height: height * scale(), logarithmic, marks, axis });
      made.hooks.setCursor = [(it) => tell(it.cursor.idx ?? null, it.data[0], it.data.slice(1))];
      plot = new uPlot(made, [[], ...series.map(() => [])], root);
      draw();
    };
    begin();
    const sized = new ResizeObserver(() => root.clientWidth && plot.setSize({ width: root.clientWidth, height: height * scale() }));
    sized.observe(root);
    const shown = new IntersectionObserver(([entry]) => {
      seen = entry.isIntersecting;
      soon();
    });
    shown.observe(root);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", begin);
    addEventListener("theme", begin);
    const unsubscribe = source.subscribe(soon);
    return () => {
      unsubscribe();
      clearTimeout(timer);
      waiting.delete(draw);
      sized.disconnect();
      shown.disconnect();
      theme.removeEventListener("change", begin);
      removeEventListener("theme", begin);
      plot.destroy();
    };
  }, [source, shape, read]);
  return html`<figure class="chart">
    <figcaption>
      <span class="chart-name">${label}</span>
      <span class="legend" ref=${legend} aria-hidden="true">
        ${series.map((one) => html`<span class=${`key ${one.faint ? "faint" : ""}`} hidden=${one.unlisted}><i class=${`dot ${one.colour.slice(2)}`}></i>${one.label} <b></b></span>`)}
        <span class="at"></span>
      </span>
    </figcaption>
    <div class="plot" role="img" ref=${place}></div>
  </figure>`;
}
