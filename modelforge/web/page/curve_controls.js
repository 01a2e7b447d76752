// How curves are to be drawn, as who looks at them has chosen.
import { html, useState } from "./dom.js";

const SMOOTHINGS = [["0", "None"], ["0.6", "Light"], ["0.9", "Medium"], ["0.98", "Strong"]];

/** `{ weight, logarithmic, controls }`: of the moving average, of the scale, and what both are chosen by. */
export function useCurveControls() {
  const [weight, setWeight] = useState("0.9");
  const [logarithmic, setLogarithmic] = useState(false);
  const controls = html`
    <label>Smoothing <select value=${weight} onChange=${(event) => setWeight(event.target.value)}>
      ${SMOOTHINGS.map(([value, name]) => html`<option value=${value}>${name}</option>`)}
    </select></label>
    <label><input type="checkbox" checked=${logarithmic} onChange=${(event) => setLogarithmic(event.target.checked)} /> Logarithmic</label>
    <small>Drag over a part to see it large; double-click to see all.</small>`;
  return { weight: Number(weight), logarithmic, controls };
}
