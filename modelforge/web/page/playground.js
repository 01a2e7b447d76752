import { html } from "./dom.js";
import { Title } from "./parts.js";

export const Playground = () => html`<${Title} name="Playground" />`;
