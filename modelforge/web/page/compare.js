import { html } from "./dom.js";
import { Title } from "./parts.js";

export const Compare = () => html`<${Title} name="Compare" />`;
