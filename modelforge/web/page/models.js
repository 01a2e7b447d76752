import { html } from "./dom.js";
import { Title } from "./parts.js";

export const Models = () => html`<${Title} name="Models" />`;
