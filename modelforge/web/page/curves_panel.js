// The curves of one job: the loss large, and beside it what else there is to see.
import { Chart } from "./chart.js";
import { useCurveControls } from "./curve_controls.js";
import { html, useCallback, useEffect, useMemo, useState } from "./dom.js";
import { curvesOf } from "./jobs.js";
import { Empty } from "./parts.js";

const OTHERS = [
  ["learning_rate", "Learning rate", "--blue"], ["grad_norm", "Gradient norm", "--violet"],
  ["reward", "Reward", "--green"], ["kl", "KL divergence", "--red"], ["reward_accuracy", "Reward accuracy", "--green"],
  ["reward_margin", "Reward margin", "--blue"], ["completion_length", "Completion length", "--violet"],
  ["tokens_per_second", "Tokens a second", "--green"], ["memory_mb", "Memory in MB", "--blue"],
  ["gpu_memory_mb", "GPU memory in MB", "--violet"],
];

/** Draw again when there are figures of a kind that there were none of. */
function useKinds(curves) {
  const kinds = () => `${curves.isRead} ${curves.step.length > 0} ` + OTHERS.map(([name]) => name).filter((name) => curves.has(name)).join() +
    (curves.evaluations.length ? "+evaluated" : "") + Object.keys(curves.rewards).join() + curves.madeAgain.attempts.join();
  const [, setSeen] = useState(kinds);
  useEffect(() => {
    setSeen(kinds()); // what came before this
    return curves.subscribe(() => setSeen(kinds()));
  }, [curves]);
}

/** `isOver`: no figures come any more. */
export function CurvesPanel({ jobId, isOver = false, few = false, checkpoints = [] }) {
  const curves = curvesOf(jobId);
  const { weight, logarithmic, controls } = useCurveControls();
  useKinds(curves);
  const evaluated = curves.evaluations.length > 0;
  const again = curves.madeAgain.attempts.join();
  const readLoss = useCallback(
    () => curves.madeAgain.beside(
      [curves.step, ...curves.smoothed("loss", weight), ...(evaluated ? [curves.evaluated("eval_loss")] : [])],
      ({ loss }) => loss ?? null,
    ),
    [curves, weight, evaluated, again],
  );
  const marks = useCallback(
    () => [
      ...curves.attempts.slice(1).map(({ step }) => ({ step, colour: "--red" })),
      ...checkpoints.map((step) => ({ step, colour: "--soft" })),
    ],
    [curves, checkpoints],
  );
  const series = useMemo(
    () => [
      { label: "loss", colour: "--accent", faint: true, width: 1 },
      { label: "smoothed", colour: "--accent" },
      ...(evaluated ? [{ label: "held out", colour: "--blue", points: true }] : []),
      ...seriesOf(again, (attempt) => ({ label: `attempt ${attempt}, made again`, colour: "--soft" })),
    ],
    [evaluated, again],
  );
  if (curves.step.length === 0) return html`<div class="no-curves"><${Empty}>${!curves.isRead ? "Reading its figures …" : isOver ? "It ended before its first step: there are no figures of it." : "The curves begin with the first step, once the model is loaded and the data are read."}<//></div>`;
  const others = OTHERS.filter(([name]) => curves.has(name)).slice(0, few ? 2 : undefined);
  return html`<div class="curves">
    <div class="curves-head">${controls}</div>
    <${Chart} label="Loss" source=${curves} series=${series} read=${readLoss} height=${few ? 240 : 300} logarithmic=${logarithmic} marks=${marks} />
    <div class="grid">
      ${others.map(([name, label, colour]) => html`<${Single} key=${name} curves=${curves} name=${name} label=${label} colour=${colour} marks=${marks} />`)}
      ${!few && Object.keys(curves.rewards).map((name) => html`<${Single} key=${`of ${name}`} curves=${curves} name=${name} label=${`Reward: ${name}`} colour="--green" marks=${marks} of=${curves.rewards} />`)}
    </div>
  </div>`;
}

/** Those that were made again: thin, and dashed. `attempts`: their numbers, joined by commas. */
const seriesOf = (attempts, of) => attempts.split(",").filter(Boolean).map((attempt) => ({ ...of(attempt), width: 1, dash: [4, 3], points: "sparse" }));

function Single({ curves, name, label, colour, marks, of = curves.columns }) {
  const again = curves.madeAgain.attempts.join();
  const series = useMemo(() => [{ label: "", colour }, ...seriesOf(again, () => ({ label: "", colour: "--soft", unlisted: true }))], [colour, again]);
  const read = useCallback(
    () => curves.madeAgain.beside([curves.step, of[name]], (metric) => (of === curves.rewards ? metric.rewards : metric)?.[name] ?? null),
    [curves, name, again],
  );
  return html`<${Chart} label=${label} source=${curves} series=${series} read=${read} height=${150} marks=${marks} />`;
}
