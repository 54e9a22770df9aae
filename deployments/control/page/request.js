// One request through its legs: as bars over time, and in words.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { Empty, Panel } from "./panels.js";
import { Status } from "./tables.js";
import { clock, cost, count, NONE, plural, reason, replica, share, spill, time, usd } from "./format.js";

export function Followed({ keyOf, view, wanted, close }) {
  const [found, setFound] = useState({ for: null });
  const path = `${view.prefix}/requests/${encodeURIComponent(wanted)}`;
  useEffect(() => {
    let current = true;
    ask(keyOf, path)
      .then((body) => current && setFound({ for: path, data: body.data }))
      .catch((failure) => current && setFound({ for: path, failed: failure.message }));
    return () => {
      current = false;
    };
  }, [path]);
  const known = found.for === path;
  const begin = useRef(null);
  useEffect(() => {
    begin.current?.scrollIntoView({ block: "nearest" });
    begin.current?.focus({ preventScroll: true });
  }, [known && path]);
  return html`<${Panel} id="request" title="One request" wide>
    <button type="button" class="quiet close" onClick=${close}>Close</button>
    <div ref=${begin} tabindex="-1" class="answer">
      ${!known && html`<${Empty}>Asking…<//>`}
      ${known && found.failed && html`<${Empty}>${found.failed}<//>`}
      ${known && found.data?.map((each) => html`<${Request} key=${each.serial} request=${each} />`)}
    </div>
  <//>`;
}

function Request({ request }) {
  const spans = spansOf(request);
  return html`<article class="request">
    <h3><code>${request.id}</code> <${Status} row=${request} /></h3>
    <dl class="facts across">
      <div><dt>began</dt><dd>${clock(request.at_s)}</dd></div>
      <div><dt>tenant</dt><dd>${request.tenant || NONE}</dd></div>
      <div><dt>endpoint</dt><dd>${request.endpoint}${request.batch ? ", of a batch" : ""}</dd></div>
      <div><dt>class</dt><dd>${request.priority_class || NONE}</dd></div>
      <div><dt>model</dt><dd>${request.model || NONE}</dd></div>
      <div><dt>first token</dt><dd>${time(request.ttft_ms)}</dd></div>
      <div><dt>each later token</dt><dd>${request.tpot_ms == null ? NONE : `${request.tpot_ms.toFixed(1)} ms`}</dd></div>
      <div><dt>in all</dt><dd>${time(request.took_ms)}</dd></div>
      <div><dt>prompt</dt><dd>${plural(request.prompt_tokens, "token")}${request.cached_tokens ? `, ${count(request.cached_tokens)} cached` : ""}</dd></div>
      <div><dt>output</dt><dd>${plural(request.output_tokens, "token")}</dd></div>
      <div><dt>billed</dt><dd>${usd(request.usd)}</dd></div>
    </dl>
    ${spans.length > 0 && html`<${Course} spans=${spans} whole=${request.took_ms} />`}
    <ol class="steps">
      ${stepsOf(request).map((step) => html`<li><b>${time(step.at)}</b><span>${step.text}</span></li>`)}
    </ol>
    ${request.attempts.flatMap((attempt) => attempt.legs).map((leg) => html`<${Decision} leg=${leg} />`)}
  </article>`;
}

/** What took time, in the order of its beginning: `{name, kind, from, to}`, in milliseconds. */
export function spansOf(request) {
  const spans = [];
  const first = request.attempts[0];
  if (first?.admitted_ms != null) {
    const queued = first.admitted_ms - (first.waited_ms || 0);
    if (queued > 0) spans.push({ name: "read, look up, tokenize", kind: "gateway", from: 0, to: queued });
  }
  for (const attempt of request.attempts) {
    if (attempt.admitted_ms != null && attempt.waited_ms > 0) {
      spans.push({ name: `wait for ${attempt.model}`, kind: "queue", from: attempt.admitted_ms - attempt.waited_ms, to: attempt.admitted_ms });
    }
    const shown = attempt.outcome === "shown";
    attempt.legs.forEach((leg, i) => {
      const name = `${attempt.model} ${replica(leg.replica)}`;
      const token = shown && i === 0 && request.ttft_ms != null ? Math.min(request.ttft_ms, leg.ended_ms) : null;
      if (token != null && token > leg.begun_ms) {
        spans.push({ name: `${name}: to the first token`, kind: "prefill", from: leg.begun_ms, to: token });
        spans.push({ name: `${name}: answer`, kind: leg.loss ? "broken" : "decode", from: token, to: leg.ended_ms });
      } else {
        spans.push({ name, kind: leg.loss || !shown ? "broken" : "decode", from: leg.begun_ms, to: leg.ended_ms });
      }
    });
  }
  return spans.sort((a, b) => a.from - b.from || a.to - b.to);
}

function Course({ spans, whole }) {
  const end = Math.max(whole, ...spans.map((span) => span.to), 1);
  const percent = (ms) => `${(Math.max(0, ms) / end) * 100}%`;
  return html`<ul class="course">
    ${spans.map(
      (span) => html`<li>
        <span class="course-name">${span.name}</span>
        <span class="track"><span class=${`span ${span.kind}`} style=${{ left: percent(span.from), width: percent(span.to - span.from) }}></span></span>
        <b>${time(span.to - span.from)}</b>
      </li>`,
    )}
  </ul>`;
}

/** The same in words. */
export function stepsOf(request) {
  const steps = [{ at: 0, text: request.tenant ? `arrived from ${request.tenant}` : "arrived without a valid key" }];
  for (const attempt of request.attempts) {
    if (attempt.spill) steps.push({ at: attempt.legs[0]?.begun_ms ?? attempt.admitted_ms ?? 0, text: `${attempt.model} takes it, because ${spill(attempt.spill)}` });
    if (attempt.admitted_ms != null) steps.push({ at: attempt.admitted_ms, text: attempt.waited_ms >= 1 ? `let in after ${time(attempt.waited_ms)} in the queue` : "let in without waiting" });
    for (const leg of attempt.legs) {
      const because = leg.reason ? `: ${reason(leg.reason)}` : "";
      const held = leg.held_blocks ? `, which was thought to have ${plural(leg.held_blocks, "block")} of the prompt` : "";
      const split = leg.prefill_replica ? ` (${replica(leg.prefill_replica)} computes the prompt)` : "";
      steps.push({ at: leg.begun_ms, text: `placed on ${replica(leg.replica)}${split}${because}${held}` });
      steps.push({ at: leg.ended_ms, text: ended(leg) });
    }
    if (attempt.outcome === "doubtful") steps.push({ at: attempt.legs.at(-1)?.ended_ms ?? 0, text: `the answer of ${attempt.model} was not good enough` });
  }
  if (request.ttft_ms != null) steps.push({ at: request.ttft_ms, text: "first token to the client" });
  if (request.code) steps.push({ at: request.took_ms, text: `ended with ${request.code}` });
  return steps.map((step, i) => [step, i]).sort(([a, i], [b, j]) => a.at - b.at || i - j).map(([step]) => step);
}

function ended(leg) {
  const made = `${plural(leg.output_tokens, "token")} from ${replica(leg.replica)}`;
  const cached = leg.prompt_tokens ? `, ${share(leg.cached_tokens / leg.prompt_tokens, 0)} of its prompt was cached` : "";
  if (!leg.loss) return `${made}${cached}`;
  const lost = { gone: "the replica went away", stuck: "the replica got stuck", moved: "the stream moved on" };
  return `${made}, then ${lost[leg.loss] || leg.loss}; it goes on elsewhere`;
}

function Decision({ leg }) {
  if (!leg.candidates?.length) return null;
  return html`<div class="decision">
    <h4>Why ${replica(leg.replica)}: ${reason(leg.reason)}</h4>
    <p class="about">The least cost that has room wins. Cost is in tokens to prefill: what is ahead, plus the part of this prompt that the replica has not cached.</p>
    <div class="scroll" tabindex="0" role="region" aria-label=${`Replicas that were weighed for ${replica(leg.replica)}`}>
      <table>
        <thead>
          <tr><th scope="col">replica</th><th scope="col" class="number">cost</th><th scope="col" class="number">prompt cached</th><th scope="col" class="number">prefill ahead</th><th scope="col" class="number">decode ahead</th></tr>
        </thead>
        <tbody>
          ${leg.candidates.map(
            (each) => html`<tr key=${each.replica} class=${each.replica === leg.replica ? "chosen" : ""}>
              <th scope="row"><code title=${each.replica}>${replica(each.replica)}</code>${each.replica === leg.replica ? html`<span class="sign good">✓ chosen</span>` : ""}</th>
              <td class="number">${cost(each.cost)}</td>
              <td class="number">${plural(each.held_blocks, "block")}</td>
              <td class="number">${plural(each.prefill_tokens, "token")}</td>
              <td class="number">${plural(each.decode_tokens, "token")}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </div>`;
}
