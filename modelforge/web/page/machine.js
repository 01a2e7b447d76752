import { html } from "./dom.js";
import { Title } from "./parts.js";

export const Machine = () => html`<${Title} name="Machine" />`;
