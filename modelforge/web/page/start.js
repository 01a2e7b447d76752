import { html } from "./dom.js";
import { Title } from "./parts.js";

export const Start = () => html`<${Title} name="Start" />`;
