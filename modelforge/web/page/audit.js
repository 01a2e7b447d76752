import { html } from "./dom.js";
import { Title } from "./parts.js";

export const Audit = () => html`<${Title} name="Audit" />`;
