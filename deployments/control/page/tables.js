// Tenants, replicas, queues, and the last requests.
import { html, useRef, useState } from "./vendor/preact.js";
import { Bar, Budget, Empty, judged, Panel, Quotas } from "./panels.js";
import { clock, compact, count, NONE, plural, replica, share, time, usd, why } from "./format.js";

const NUMBER = "number";

/** `heads`: [name, class] of each column. On a narrow screen a row is a card, and each cell has its
 * column's name before it; roles are said, because the layout takes them from the elements there. */
function Table({ label, heads, rows }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`${label}: table`}>
    <table role="table" class="cards" aria-label=${label}>
      <thead role="rowgroup">
        <tr role="row">${heads.map(([name, kind = ""]) => html`<th role="columnheader" scope="col" class=${kind}>${name}</th>`)}</tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.map(
          (row) => html`<tr role="row" key=${row.key} class=${row.chosen ? "chosen" : ""}>
            ${row.cells.map((cell, i) =>
              i === row.head
                ? html`<th role="rowheader" scope="row" data-name=${heads[i][0]} class=${heads[i][1] || ""}>${cell}</th>`
                : html`<td role="cell" data-name=${heads[i][0]} class=${heads[i][1] || ""}>${cell}</td>`,
            )}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

const SHOWN = 12;

const TENANT_HEADS = [["tenant"], ["requests", NUMBER], ["under way", NUMBER], ["failed", NUMBER], ["prompt tokens", NUMBER], ["output tokens", NUMBER], ["billed", NUMBER], ["in time", NUMBER], ["tightest quota", "bars"], ["budget of the month", "bars"]];

export function Tenants({ live, choose }) {
  const [all, setAll] = useState(false);
  const shown = all ? live.tenants : live.tenants.slice(0, SHOWN);
  const rows = shown.map((each) => ({ key: each.tenant, head: 0, cells: tenantCells(each, choose) }));
  return html`<${Panel} id="tenants" title="Tenants" wide about=${`The busiest first, in the last ${live.window_s / 60} min. Choose one to see what it sees.`}>
    ${rows.length ? html`<${Table} label="Tenants" heads=${TENANT_HEADS} rows=${rows} />` : html`<${Empty}>No tenant has asked anything in the last minutes.<//>`}
    ${live.tenants.length > SHOWN && html`<button type="button" class="quiet" onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${count(live.tenants.length)}`}</button>`}
  <//>`;
}

function tenantCells(each, choose) {
  const timed = each.ttft_met + each.ttft_missed;
  const attained = timed ? each.ttft_met / timed : null;
  const sign = judged(attained);
  return [
    each.tenant ? html`<button type="button" class="link" onClick=${() => choose(each.tenant)}>${each.tenant}</button>` : html`<span class="none">no valid key</span>`,
    count(each.requests),
    count(each.in_flight),
    each.failed ? html`<span class="sign bad">✕ ${count(each.failed)}</span>` : "0",
    html`${compact(each.prompt_tokens)}${each.prompt_tokens > 0 && html`<small>${share(each.cached_tokens / each.prompt_tokens, 0)} cached</small>`}`,
    compact(each.output_tokens),
    usd(each.usd),
    sign ? html`<span class=${`sign ${sign.kind}`}>${sign.mark} ${share(attained)}</span>` : NONE,
    each.tenant ? html`<${Quotas} quotas=${each.quotas} tightest />` : NONE,
    each.budget ? html`<${Budget} budget=${each.budget} />` : html`<span class="none">none</span>`,
  ];
}

const OLD_S = 5;
const REPLICA_HEADS = [["replica"], ["role"], ["KV cache", "bars"], ["running", NUMBER], ["waiting", NUMBER], ["tokens to do", NUMBER], ["heard", NUMBER]];

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
  const heads = priced ? [...REPLICA_HEADS, ["cost", NUMBER]] : REPLICA_HEADS;
  const rows = replicas.map((each) => ({ key: each.id, head: 0, cells: replicaCells(each, priced) }));
  return html`<h3>${model}<small>${plural(replicas.length, "replica")}</small></h3>
    <${Table} label=${`Replicas of ${model}`} heads=${heads} rows=${rows} />`;
}

function replicaCells(each, priced) {
  const cells = [
    html`<code title=${each.id}>${replica(each.id)}</code>`,
    html`${each.role}${each.pool && html`<small>pool ${each.pool}</small>`}`,
    html`<${Bar} part=${each.kv_use} label="KV cache in use" text=${share(each.kv_use, 0)} grave=${each.kv_use >= 0.95 ? 2 : each.kv_use >= 0.85 ? 1 : 0} />`,
    count(each.running),
    count(each.waiting),
    compact(each.outstanding_tokens),
    each.age_s > OLD_S ? html`<span class="sign late">▲ ${Math.round(each.age_s)} s ago</span>` : "now",
  ];
  return priced ? [...cells, each.usd_per_hour == null ? NONE : `${usd(each.usd_per_hour)}/h`] : cells;
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

const MORE = 60;

export function Recent({ live, view, follow, followed }) {
  const [wanted, setWanted] = useState("");
  const [all, setAll] = useState(false);
  const [held, setHeld] = useState(false);
  const kept = useRef(live.recent);
  if (!held) kept.current = live.recent;
  const heads = [["ended"], ["request"], ...(view.whole ? [["tenant"]] : []), ["class"], ["answered by"], ["replica, and why", "why"], ["first token", NUMBER], ["later tokens", NUMBER], ["in all", NUMBER], ["tokens", NUMBER], ["status"]];
  const rows = kept.current.slice(0, all ? MORE : SHOWN).map((row) => ({
    key: row.serial,
    head: 1,
    chosen: followed === row.serial,
    cells: requestCells(row, view, follow, followed === row.serial),
  }));
  const go = (event) => {
    event.preventDefault();
    if (wanted.trim()) follow(wanted.trim());
  };
  // Rows that move away from under a pointer cannot be chosen.
  const holding = { onPointerEnter: () => setHeld(true), onPointerLeave: () => setHeld(false), onfocusin: () => setHeld(true), onfocusout: () => setHeld(false) };
  return html`<${Panel} id="requests" title="Requests and decisions" wide about="The last ones, the newest first; they stand still while you point at them. Choose one to follow it through its legs.">
    <form class="find" onSubmit=${go}>
      <label for="find">Request id</label>
      <input id="find" type="search" autocomplete="off" spellcheck="false" value=${wanted} onInput=${(event) => setWanted(event.target.value)} />
      <button type="submit">Follow</button>
    </form>
    ${rows.length
      ? html`<div ...${holding}><${Table} label="The last requests" heads=${heads} rows=${rows} /></div>`
      : html`<${Empty}>No request has ended in the last minutes. Ask something, and it stands here a second later.<//>`}
    ${kept.current.length > SHOWN && html`<button type="button" class="quiet" onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show ${Math.min(MORE, kept.current.length)}`}</button>`}
  <//>`;
}

function requestCells(row, view, follow, chosen) {
  return [
    clock(row.at_s + row.took_ms / 1000),
    html`<button type="button" class="link id" aria-pressed=${chosen ? "true" : "false"} title=${row.id} onClick=${() => follow(row.serial)}>${row.id.slice(0, 13)}</button>`,
    ...(view.whole ? [row.tenant || NONE] : []),
    row.priority_class || NONE,
    html`${row.answered || html`<span class="none">nobody</span>`}${row.spill && html`<small>instead of ${row.model}: ${row.spill}</small>`}`,
    row.replica ? html`<span><code title=${row.replica}>${replica(row.replica)}</code> ${why(row)}${row.moved > 0 && html`<small>moved ${count(row.moved)}×</small>`}</span>` : NONE,
    time(row.ttft_ms),
    row.tpot_ms == null ? NONE : `${row.tpot_ms.toFixed(1)} ms`,
    time(row.took_ms),
    html`${row.status === 200 ? `${compact(row.prompt_tokens)} → ${compact(row.output_tokens)}` : NONE}${row.cached_tokens > 0 && html`<small>${compact(row.cached_tokens)} cached</small>`}`,
    html`<${Status} row=${row} />`,
  ];
}

export function Status({ row }) {
  if (row.status == null) return html`<span class="none">in the ledger</span>`;
  if (row.status === 0 || row.code === "client_gone") return html`<span class="sign late">▲ client left</span>`;
  if (row.code) return html`<span class=${`sign ${row.status >= 500 || row.status === 200 ? "bad" : "late"}`}>${row.status >= 500 ? "✕" : "▲"} ${row.status} ${row.code}</span>`;
  return html`<span class="sign good">✓ ${row.status}</span>`;
}

