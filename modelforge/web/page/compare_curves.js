// The curves of several jobs over one axis: steps, time or epochs.
import { Chart, STEPS } from "./chart.js";
import { drawn } from "./compare_swatch.js";
import { useCurveControls } from "./curve_controls.js";
import { html, useCallback, useEffect, useMemo, useState } from "./dom.js";
import { duration, figure } from "./format.js";
import { curvesOf } from "./jobs.js";

const AXES = {
  step: STEPS,
  elapsed: { name: "time", write: duration },
  epoch: { name: "epoch", write: figure },
};
const AXIS_NAMES = [["step", "Steps"], ["elapsed", "Time of training"], ["epoch", "Epochs"]];
const OTHERS = [["reward", "Reward"], ["kl", "KL divergence"], ["learning_rate", "Learning rate"]];
const HELD_OUT = "eval_loss";

/** How long a job had trained at each of its steps, over all attempts: each of them counts from 0. */
function elapsed({ attempt, columns: { elapsed_seconds: seconds } }) {
  let before = 0;
  return seconds.map((value, index) => {
    if (index > 0 && attempt[index] !== attempt[index - 1]) before += seconds[index - 1] ?? 0;
    return before + (value ?? 0);
  });
}

const along = (curves, axis) => (axis === "step" ? curves.step : axis === "epoch" ? curves.columns.epoch : elapsed(curves));

/** `[x, y]` of the evaluations of a job. */
function judged(curves, axis) {
  const known = curves.evaluations.filter(({ metrics }) => (metrics[HELD_OUT] ?? null) !== null);
  const times = axis === "elapsed" ? elapsed(curves) : [];
  const where = ({ step, epoch }) => (axis === "step" ? step : axis === "epoch" ? epoch : (times[curves.step.findLastIndex((each) => each <= step)] ?? 0));
  return [known.map(where), known.map(({ metrics }) => metrics[HELD_OUT])];
}

/** Curves of their own x each, `[x, …columns]`, as columns of one x that has them all. */
export function together(tables) {
  const all = [...new Set(tables.flatMap(([x]) => x))].sort((a, b) => a - b);
  const at = new Map(all.map((x, index) => [x, index]));
  const spread = (x, column) => {
    const made = new Array(all.length).fill(null);
    column.forEach((value, index) => { made[at.get(x[index])] = value; });
    return made;
  };
  return [all, ...tables.flatMap(([x, ...columns]) => columns.map((column) => spread(x, column)))];
}

/** What tells of every change of several curves. */
const sourceOf = (curves) => ({
  subscribe: (listener) => {
    const ends = curves.map((one) => one.subscribe(listener));
    return () => ends.forEach((end) => end());
  },
});

/** Which figures there are; the view is drawn again when there are others. */
function useKinds(source, curves) {
  const kinds = () => [
    ...OTHERS.map(([name]) => name).filter((name) => curves.some((one) => one.has(name))),
    ...(curves.some((one) => one.evaluations.length) ? [HELD_OUT] : []),
  ].join();
  const [, setSeen] = useState("");
  useEffect(() => {
    setSeen(kinds());
    return source.subscribe(() => setSeen(kinds()));
  }, [source]);
  return new Set(kinds().split(","));
}

export function ComparedCurves({ jobs }) {
  const [axis, setAxis] = useState("step");
  const { weight, logarithmic, controls } = useCurveControls();
  const now = jobs.map((job) => curvesOf(job.job_id));
  const curves = useMemo(() => now, now);
  const source = useMemo(() => sourceOf(curves), [curves]);
  const kinds = useKinds(source, curves);
  const series = useMemo(() => curves.map((_, index) => ({ label: String(index + 1), ...drawn(index) })), [curves.length]);
  const losses = useMemo(
    () => (weight === 0 ? series : series.flatMap((one) => [{ ...one, dash: [], faint: true, width: 1, unlisted: true }, one])),
    [series, weight],
  );
  const readLoss = useCallback(
    () => together(curves.map((one) => [along(one, axis), ...(weight === 0 ? [one.columns.loss] : one.smoothed("loss", weight))])),
    [curves, axis, weight],
  );
  const readJudged = useCallback(() => together(curves.map((one) => judged(one, axis))), [curves, axis]);
  const points = useMemo(() => series.map((one) => ({ ...one, points: "joined" })), [series]);
  const shared = { source, axis: AXES[axis] };
  return html`<div class="curves">
    <div class="curves-head">
      <label>Over <select value=${axis} onChange=${(event) => setAxis(event.target.value)}>${AXIS_NAMES.map(([key, name]) => html`<option value=${key}>${name}</option>`)}</select></label>
      ${controls}
    </div>
    <${Chart} label="Loss" ...${shared} series=${losses} read=${readLoss} height=${300} logarithmic=${logarithmic} />
    <div class="grid">
      ${kinds.has(HELD_OUT) && html`<${Chart} label="Held-out loss" ...${shared} series=${points} read=${readJudged} height=${200} logarithmic=${logarithmic} />`}
      ${OTHERS.filter(([name]) => kinds.has(name)).map(([name, label]) => html`<${Single} key=${name} name=${name} label=${label} curves=${curves} along=${axis} series=${series} ...${shared} />`)}
    </div>
  </div>`;
}

function Single({ name, label, curves, along: over, series, source, axis }) {
  const read = useCallback(() => together(curves.map((one) => [along(one, over), one.columns[name]])), [curves, over, name]);
  return html`<${Chart} label=${label} source=${source} axis=${axis} series=${series} read=${read} height=${200} />`;
}
