import { html } from "./dom.js";
import { Title } from "./parts.js";

export const Datasets = () => html`<${Title} name="Datasets" />`;
