// Tenants, replicas, queues, and the last requests.
import { html, useState } from "./vendor/preact.js";
import { Bar, Budget, Empty, judged, Panel, Quotas } from "./panels.js";
import { clock, compact, count, NONE, plural, replica, share, time, usd, why } from "./format.js";

function Table({ label, heads, children }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>
    <table>
      <thead>
        <tr>${heads.map(([name, number]) => html`<th scope="col" class=${number ? "number" : ""}>${name}</th>`)}</tr>
      </thead>
      <tbody>${children}</tbody>
    </table>
  </div>`;
}

const SHOWN = 12;

export function Tenants({ live, choose }) {
  const [all, setAll] = useState(false);
  const rows = all ? live.tenants : live.tenants.slice(0, SHOWN);
  const heads = [["tenant"], ["requests", 1], ["under way", 1], ["failed", 1], ["prompt tokens", 1], ["output tokens", 1], ["billed", 1], ["in time", 1], ["tightest quota"], ["budget of the month"]];
  return html`<${Panel} id="tenants" title="Tenants" wide about=${`The busiest first, in the last ${live.window_s / 60} min`}>
    ${live.tenants.length
      ? html`<${Table} label="Tenants" heads=${heads}>
          ${rows.map((each) => html`<${Tenant} key=${each.tenant} each=${each} choose=${choose} />`)}
        <//>`
      : html`<${Empty}>No tenant has asked anything in the last minutes.<//>`}
    ${live.tenants.length > SHOWN &&
    html`<button type="button" class="quiet" onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${count(live.tenants.length)}`}</button>`}
  <//>`;
}

function Tenant({ each, choose }) {
  const timed = each.ttft_met + each.ttft_missed;
  const attained = timed ? each.ttft_met / timed : null;
  const sign = judged(attained);
  return html`<tr>
    <th scope="row">
      ${each.tenant ? html`<button type="button" class="link" onClick=${() => choose(each.tenant)}>${each.tenant}</button>` : html`<span class="none">no valid key</span>`}
    </th>
    <td class="number">${count(each.requests)}</td>
    <td class="number">${count(each.in_flight)}</td>
    <td class="number">${each.failed ? html`<span class="sign bad">✕ ${count(each.failed)}</span>` : "0"}</td>
    <td class="number">${compact(each.prompt_tokens)}${each.prompt_tokens ? html`<small>${share(each.cached_tokens / each.prompt_tokens, 0)} cached</small>` : ""}</td>
    <td class="number">${compact(each.output_tokens)}</td>
    <td class="number">${usd(each.usd)}</td>
    <td class="number">${sign ? html`<span class=${`sign ${sign.kind}`}>${sign.mark} ${share(attained)}</span>` : NONE}</td>
    <td class="bars">${each.tenant ? html`<${Quotas} quotas=${each.quotas} tightest />` : ""}</td>
    <td class="bars">${each.budget ? html`<${Budget} budget=${each.budget} />` : html`<span class="none">none</span>`}</td>
  </tr>`;
}

const OLD_S = 5;

export function Replicas({ replicas }) {
  const models = [...new Set(replicas.map((each) => each.model))];
  return html`<${Panel} id="replicas" title="Replicas" wide about="As each has said of itself last">
    ${replicas.length
      ? models.map((model) => html`<${Model} key=${model} model=${model} replicas=${replicas.filter((each) => each.model === model)} />`)
      : html`<${Empty}>No replica is up.<//>`}
  <//>`;
}

function Model({ model, replicas }) {
  const priced = replicas.some((each) => each.usd_per_hour != null);
  const heads = [["replica"], ["role"], ["KV cache"], ["running", 1], ["waiting", 1], ["tokens to do", 1], ["heard", 1]];
  if (priced) heads.push(["cost", 1]);
  return html`<h3>${model}<small>${plural(replicas.length, "replica")}</small></h3>
    <${Table} label=${`Replicas of ${model}`} heads=${heads}>
      ${replicas.map(
        (each) => html`<tr key=${each.id}>
          <th scope="row" title=${each.id}><code>${replica(each.id)}</code></th>
          <td>${each.role}${each.pool && html`<small>pool ${each.pool}</small>`}</td>
          <td class="bars"><${Bar} part=${each.kv_use} label="KV cache in use" text=${share(each.kv_use, 0)} grave=${each.kv_use >= 0.95 ? 2 : each.kv_use >= 0.85 ? 1 : 0} /></td>
          <td class="number">${count(each.running)}</td>
          <td class="number">${count(each.waiting)}</td>
          <td class="number">${compact(each.outstanding_tokens)}</td>
          <td class="number">${each.age_s > OLD_S ? html`<span class="sign late">▲ ${Math.round(each.age_s)} s ago</span>` : "now"}</td>
          ${priced && html`<td class="number">${each.usd_per_hour == null ? NONE : `${usd(each.usd_per_hour)}/h`}</td>`}
        </tr>`,
      )}
    <//>`;
}

export function Queues({ queues }) {
  const shown = queues.filter((each) => each.waiting);
  const most = Math.max(1, ...shown.map((each) => each.waiting));
  return html`<${Panel} id="queues" title="Queue" about="Requests that wait for room, by class, in all gateways">
    ${shown.length
      ? html`<ul class="queues">
          ${shown.map(
            (each) => html`<li key=${each.model + each.priority_class}>
              <span>${each.priority_class}<small>${each.model}</small></span>
              <${Bar} part=${each.waiting / most} label=${`${each.priority_class}, ${each.model}`} grave=${each.late ? 1 : 0}
                text=${`${count(each.waiting)} waiting${each.late ? `, ${count(each.late)} late` : ""}`} />
            </li>`,
          )}
        </ul>`
      : html`<${Empty}>Nothing waits.<//>`}
  <//>`;
}

export function Recent({ live, view, follow, followed }) {
  const [wanted, setWanted] = useState("");
  const heads = [["ended"], ["request"], ...(view.whole ? [["tenant"]] : []), ["class"], ["answered by"], ["replica, and why"], ["first token", 1], ["per token", 1], ["in all", 1], ["tokens", 1], ["status"]];
  const go = (event) => {
    event.preventDefault();
    if (wanted.trim()) follow(wanted.trim());
  };
  return html`<${Panel} id="requests" title="Requests and decisions" wide about="The last ones, the newest first. Choose one to follow it through its legs.">
    <form class="find" onSubmit=${go}>
      <label for="find">Request id</label>
      <input id="find" type="search" autocomplete="off" spellcheck="false" value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
      <button type="submit">Follow</button>
    </form>
    ${live.recent.length
      ? html`<${Table} label="The last requests" heads=${heads}>
          ${live.recent.slice(0, 25).map((row) => html`<${Row} key=${row.serial} row=${row} view=${view} follow=${follow} chosen=${followed === row.serial} />`)}
        <//>`
      : html`<${Empty}>No request has ended in the last minutes. Ask something, and it stands here a second later.<//>`}
  <//>`;
}

function Row({ row, view, follow, chosen }) {
  return html`<tr class=${chosen ? "chosen" : ""}>
    <td>${clock(row.at_s + row.took_ms / 1000)}</td>
    <th scope="row"><button type="button" class="link id" aria-pressed=${chosen ? "true" : "false"} title=${row.id} onClick=${() => follow(row.serial)}>${row.id.slice(0, 13)}</button></th>
    ${view.whole && html`<td>${row.tenant || NONE}</td>`}
    <td>${row.priority_class || NONE}</td>
    <td>${row.answered || NONE}${row.spill && html`<small>instead of ${row.model}: ${row.spill}</small>`}</td>
    <td class="why">${row.replica ? html`<code title=${row.replica}>${replica(row.replica)}</code> <span>${why(row)}</span>` : NONE}${row.moved > 0 && html`<small>moved ${count(row.moved)}×</small>`}</td>
    <td class="number">${time(row.ttft_ms)}</td>
    <td class="number">${row.tpot_ms == null ? NONE : `${row.tpot_ms.toFixed(1)} ms`}</td>
    <td class="number">${time(row.took_ms)}</td>
    <td class="number">${row.status === 200 ? html`${compact(row.prompt_tokens)} → ${compact(row.output_tokens)}` : NONE}${row.cached_tokens > 0 && html`<small>${compact(row.cached_tokens)} cached</small>`}</td>
    <td><${Status} row=${row} /></td>
  </tr>`;
}

export function Status({ row }) {
  if (row.status == null) return html`<span class="none">in the ledger</span>`;
  if (row.status === 0 || row.code === "client_gone") return html`<span class="sign late">▲ client left</span>`;
  if (row.code) return html`<span class=${`sign ${row.status >= 500 || row.status === 200 ? "bad" : "late"}`}>${row.status >= 500 ? "✕" : "▲"} ${row.status} ${row.code}</span>`;
  return html`<span class="sign good">✓ ${row.status}</span>`;
}

