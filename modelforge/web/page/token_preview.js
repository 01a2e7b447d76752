// A dataset as a model reads it: how long it is, what is cut, and token by token what is learned.
import { get, path, query } from "./api.js";
import { html } from "./dom.js";
import { count, share } from "./format.js";
import { Histogram } from "./histogram.js";
import { Empty, Facts, Refusal } from "./parts.js";
import { useAnswer } from "./store.js";

const RECORDS = 3;
const TOKENS = 400;

/** `seen`: the query that says by which model, and for what. */
export function Statistics({ filename, seen }) {
  const { value, problem, busy } = useAnswer((signal) => get(query(path`/api/datasets/${filename}/statistics`, seen), signal), [filename, JSON.stringify(seen)]);
  return html`<div aria-busy=${busy} class=${busy ? "stale" : ""}>
    ${problem ? html`<${Refusal} problem=${problem} />` : value === null && html`<${Empty}>Counting tokens …<//>`}
    ${value && !problem && html`
      <${Facts} of=${[
        ["Measured", value.measured < value.num_examples ? `${count(value.measured)} of ${count(value.num_examples)} records` : `all ${count(value.measured)} records`],
        ["Examples", count(value.examples)], ["Tokens", count(value.tokens)],
        ["Of them learned", `${count(value.loss_tokens)} (${share(value.tokens ? value.loss_tokens / value.tokens : 0)})`],
        ["Cut", count(value.cut)], ["Teach nothing", value.left_out ? count(value.left_out) : null],
      ]} />
      ${value.left_out > 0 && html`<p class="warning">Nothing is learned of the lines ${value.left_out_lines.slice(0, 20).map(count).join(", ")}${value.left_out > 20 ? " and others" : ""}: without a token to learn they are left out.</p>`}
      <div class="grid">${value.lengths.map((lengths) => html`<${Histogram} key=${lengths.sequence} lengths=${lengths} />`)}</div>`}
  </div>`;
}

export function TokenPreview({ filename, seen }) {
  const { value, problem, busy } = useAnswer((signal) => get(query(path`/api/datasets/${filename}/preview`, { ...seen, limit: RECORDS }), signal), [filename, JSON.stringify(seen)]);
  return html`<div aria-busy=${busy} class=${busy ? "stale" : ""}>
    ${problem ? html`<${Refusal} problem=${problem} />` : value === null && html`<${Empty}>The model's tokenizer reads the first records …<//>`}
    ${value && !problem && html`<p class="soft">What is learned is <mark class="token learned">marked</mark>; all else is read only. Each box is a token.</p>
      ${value.records.map((record) => html`<section class="seen" key=${record.line}>
        <p class="line-name">Line ${count(record.line)}</p>
        ${(record.examples ?? []).map((example) => html`<${Example} example=${example} />`)}
        ${record.more_examples > 0 && html`<p class="soft">And ${count(record.more_examples)} more examples of it.</p>`}
      </section>`)}`}
  </div>`;
}

function Example({ example }) {
  return html`${example.left_out && html`<p class="warning">Left out: ${example.left_out}</p>`}
    ${example.sequences.map((one) => html`
      ${example.sequences.length > 1 && html`<p class="soft">${one.name}</p>`}
      <p class="tokens" dir="auto">${one.tokens.slice(0, TOKENS).map((token, place) => html`<${Token} token=${token} learned=${isLearned(one, token, place)} />`)}
      ${one.tokens.length > TOKENS && html`<span class="soft"> … ${count(one.tokens.length - TOKENS)} tokens more</span>`}</p>
      ${one.length > one.tokens.length && html`<p class="error-word">${count(one.length - one.tokens.length)} of ${count(one.length)} tokens are cut off.</p>`}`)}`;
}

/** Of a window the whole answer, from its first token to its last, unless it has none. */
const isLearned = ({ start, end }, token, place) =>
  start === null || start === undefined ? token.loss : start === end ? token.loss : place >= start && place <= end;

const Token = ({ token, learned }) => html`<${learned ? "mark" : "span"} class=${learned ? "token learned" : "token"} title=${`token ${token.id}`}>${token.text.replaceAll("\n", "↵\n") || "·"}<//>`;
