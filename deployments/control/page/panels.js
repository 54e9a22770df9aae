// SLOs, money, and what went another way.
import { html } from "./vendor/preact.js";
import { Chart } from "./chart.js";
import { compact, count, NONE, plural, rate, share, spill, time, usd } from "./format.js";

export function Panel({ id, title, about, wide, children }) {
  return html`<section class=${`panel${wide ? " wide" : ""}`} aria-labelledby=${`${id}-title`} id=${id}>
    <header>
      <h2 id=${`${id}-title`}>${title}</h2>
      ${about && html`<p class="about">${about}</p>`}
    </header>
    ${children}
  </section>`;
}

export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`;
}

/** A share as a bar with its number beside it. `grave` from 0 to 2 has a sign of its own. */
export function Bar({ part, label, text, grave = 0 }) {
  const width = `${Math.max(0, Math.min(1, part || 0)) * 100}%`;
  return html`<span class="bar-line">
    <span class="bar" role="img" aria-label=${`${label}: ${text}`}>
      <span class=${`fill grave-${grave}`} style=${{ width }}></span>
    </span>
    <span class="bar-text" aria-hidden="true">${text}</span>
  </span>`;
}

function Tile({ label, value, note, sign }) {
  return html`<div class="tile">
    <dt>${label}</dt>
    <dd>
      <span class="figure">${value}</span>
      ${sign && html`<span class=${`sign ${sign.kind}`}>${sign.mark} ${sign.word}</span>`}
      <span class="note">${note}</span>
    </dd>
  </div>`;
}

export const GOOD = { kind: "good", mark: "✓", word: "kept" };
const LATE = { kind: "late", mark: "▲", word: "often late" };
const BAD = { kind: "bad", mark: "✕", word: "missed" };
/** How an attained share is judged; with words and shapes, not by colour alone. */
export function judged(attained) {
  if (attained == null) return null;
  return attained >= 0.99 ? GOOD : attained >= 0.95 ? LATE : BAD;
}

const perMinute = (live) => `in the last ${live.window_s / 60} min`;

export function Tiles({ live }) {
  const met = live.classes.reduce((sum, each) => sum + each.ttft_met, 0);
  const missed = live.classes.reduce((sum, each) => sum + each.ttft_missed, 0);
  const attained = met + missed ? met / (met + missed) : null;
  const cached = live.prompt_tokens ? live.cached_tokens / live.prompt_tokens : null;
  const last = live.series.at_s.length - 1;
  const billed = (Number(live.usd) * 3600) / live.window_s;
  return html`<dl class="tiles">
    <${Tile} label="First tokens in time" value=${share(attained)} sign=${judged(attained)}
      note=${met + missed ? `${count(met)} of ${count(met + missed)} ${perMinute(live)}` : `no answer ${perMinute(live)}`} />
    <${Tile} label="Requests" value=${rate(live.series.requests_per_s[last] ?? 0, "/s")}
      note=${`${count(live.requests)} ${perMinute(live)}, ${count(live.in_flight)} under way`} />
    <${Tile} label="Output" value=${rate(live.series.output_tokens_per_s[last] ?? 0, "tokens/s")}
      note=${cached == null ? "no prompt yet" : `${share(cached, 0)} of prompt tokens cached`} />
    ${live.paid_usd_per_hour != null
      ? html`<${Tile} label="Replicas cost" value=${`${usd(live.paid_usd_per_hour)}/h`} note=${`${usd(billed)}/h billed to tenants`} />`
      : html`<${Tile} label="Billed" value=${`${usd(billed)}/h`} note=${`${usd(live.usd)} ${perMinute(live)}`} />`}
    <${Tile} label="Failed" value=${count(live.failed)}
      sign=${live.failed ? { kind: "bad", mark: "✕", word: "errors" } : null}
      note=${`${plural(live.refused, "request")} refused (4xx), ${plural(live.moved, "leg")} moved`} />
  </dl>`;
}

export function Slo({ live }) {
  if (!live.classes.length) {
    return html`<${Panel} id="slo" title="SLO now"><${Empty}>No priority class has a limit. Set <code>ttft_slo_ms</code> below <code>admission.classes</code>.<//><//>`;
  }
  return html`<${Panel} id="slo" title="SLO now" about=${`Share of answers within their class's limit, ${perMinute(live)}`}>
    <ul class="classes">
      ${live.classes.map(
        (each) => each.ttft_slo_ms == null && each.tpot_slo_ms == null ? html`<li key=${each.priority_class}><p class="limit none"><b>${each.priority_class}</b><span>no limits</span></p></li>` : html`<li key=${each.priority_class}>
          <h3>${each.priority_class}</h3>
          <${Limit} what="first token" limit=${each.ttft_slo_ms} met=${each.ttft_met} missed=${each.ttft_missed} attained=${each.ttft_attained} />
          <${Limit} what="each later token" limit=${each.tpot_slo_ms} met=${each.tpot_met} missed=${each.tpot_missed} attained=${each.tpot_attained} />
        </li>`,
      )}
    </ul>
  <//>`;
}

function Limit({ what, limit, met, missed, attained }) {
  if (limit == null) return html`<p class="limit none"><span>${what}</span><span>no limit</span></p>`;
  const sign = judged(attained);
  const text = attained == null ? "no answer" : `${share(attained)} (${count(met)} of ${count(met + missed)})`;
  return html`<div class="limit">
    <p><span>${what} ≤ ${time(limit)}</span>${sign && html`<span class=${`sign ${sign.kind}`}>${sign.mark} ${sign.word}</span>`}</p>
    <${Bar} part=${attained} label=${what} text=${text} grave=${sign === BAD ? 2 : sign === LATE ? 1 : 0} />
  </div>`;
}

const LINE = { attained: (n) => (n == null ? NONE : share(n, n < 1 ? 1 : 0)) };
const upToOne = (low) => [Math.min(0.9, Math.max(0, low - 0.05)), 1.005];

export function Charts({ series }) {
  const attained = Object.entries(series.attained).map(([name, values]) => ({ name, values }));
  const some = attained.filter((line) => line.values.some((n) => n != null));
  const one = (values) => [{ name: "", values }];
  return html`<${Panel} id="course" title="Last 15 minutes" wide about="In steps of half a minute">
    <div class="charts">
      <${Chart} title="Requests per second" at=${series.at_s} lines=${one(series.requests_per_s)} show=${(n) => rate(n, "/s")} tick=${compact} />
      <${Chart} title="Output tokens per second" at=${series.at_s} lines=${one(series.output_tokens_per_s)} show=${(n) => (n == null ? NONE : `${compact(Math.round(n))} /s`)} tick=${compact} />
      ${some.length
        ? html`<${Chart} title="First tokens in time" at=${series.at_s} lines=${some} show=${LINE.attained} tick=${(n) => `${Math.round(n * 100)} %`} bounds=${upToOne} />`
        : html`<figure class="chart"><figcaption><span class="chart-title">First tokens in time</span></figcaption><${Empty}>No answer with a limit yet.<//></figure>`}
      <${Chart} title="Billed per hour" at=${series.at_s} lines=${one(series.usd_per_hour)} show=${usd} />
    </div>
  <//>`;
}

export function Money({ money, live, view }) {
  if (money == null) return html`<${Panel} id="cost" title="Cost"><${Empty}>Asking the ledger…<//><//>`;
  if (money.failed) return html`<${Panel} id="cost" title="Cost"><${Empty}>${money.failed}<//><//>`;
  return view.whole ? html`<${Cost} money=${money} live=${live} />` : html`<${Bill} money=${money} live=${live} />`;
}

function Cost({ money, live }) {
  const { whole, hour } = money;
  const paid = Number(whole.paid_usd);
  const idle = paid ? Number(whole.idle_usd) / paid : null;
  const idleNow = Number(hour.paid_usd) ? Number(hour.idle_usd) / Number(hour.paid_usd) : null;
  const perHour = live.paid_usd_per_hour;
  return html`<${Panel} id="cost" title="Cost" about=${`Now, and since ${money.month} (UTC)`}>
    <dl class="facts">
      <div><dt>Replicas now</dt><dd>${perHour == null ? "no price is set" : `${usd(perHour)} per hour`}</dd></div>
      <div><dt>of it idle, this hour</dt><dd>${idleNow == null ? NONE : perHour == null ? share(idleNow) : `${share(idleNow)}, ${usd(idleNow * perHour)} per hour`}</dd></div>
      <div><dt>Paid this month</dt><dd>${usd(whole.paid_usd)}</dd></div>
      <div><dt>of it idle</dt><dd>${usd(whole.idle_usd)}${idle == null ? "" : ` (${share(idle)})`}</dd></div>
      <div><dt>Billed to tenants</dt><dd>${usd(whole.billed_usd)}</dd></div>
    </dl>
    ${idle != null && html`<${Bar} part=${idle} label="idle this month" text=${`${share(idle)} idle`} grave=${1} />`}
    <h3>Saved this month</h3>
    <dl class="facts">
      <div><dt>by cached prompts</dt><dd>${usd(whole.saved.cache_usd)}</dd></div>
      <div><dt>by the student</dt><dd>${usd(whole.saved.student_usd)}</dd></div>
      <div><dt>by spot machines</dt><dd>${usd(whole.saved.spot_usd)}</dd></div>
    </dl>
    ${perHour == null && html`<p class="hint">What replicas cost is not known: set <code>prices.hours</code>, or <code>price.replica_usd_per_hour</code> of a model.</p>`}
  <//>`;
}

function Bill({ money, live }) {
  const rows = money.used.data;
  const total = rows.reduce((sum, row) => sum + Number(row.usd), 0);
  const own = live.tenants[0];
  const budget = own?.budget;
  return html`<${Panel} id="cost" title="Spending" about=${`Since ${money.month} (UTC)`}>
    <dl class="facts">
      <div><dt>Billed</dt><dd>${usd(total)}</dd></div>
      ${rows.map((row) => html`<div key=${row.model}><dt>${row.model}</dt><dd>${usd(row.usd)}, ${plural(row.requests, "request")}</dd></div>`)}
    </dl>
    <h3>Budget of the month</h3>
    <${Budget} budget=${budget} />
    <h3>Quotas</h3>
    <${Quotas} quotas=${own?.quotas} />
  <//>`;
}

const grave = (part) => (part >= 1 ? 2 : part >= 0.8 ? 1 : 0);

export function Budget({ budget }) {
  if (!budget) return html`<${Empty}>No budget is set.<//>`;
  const limit = Number(budget.usd_per_month);
  const part = limit ? Number(budget.spent_usd) / limit : 1;
  return html`<${Bar} part=${part} label="budget used" grave=${grave(part)}
    text=${`${usd(budget.left_usd)} of ${usd(budget.usd_per_month)} left`} />`;
}

const QUOTA = (each) => each.quota.replaceAll("_", " ") + (each.model ? `, ${each.model}` : "");

/** All quotas, or (`tightest`) the one of which least is left. */
export function Quotas({ quotas, tightest }) {
  if (quotas == null) return html`<span class="none">not known now</span>`;
  if (!quotas.length) return tightest ? html`<span class="none">none</span>` : html`<${Empty}>No quota is set.<//>`;
  const part = (each) => (each.limit ? each.used / each.limit : 1);
  const shown = tightest ? [quotas.reduce((a, b) => (part(b) > part(a) ? b : a))] : quotas;
  return html`<ul class="quotas">
    ${shown.map(
      (each) => html`<li key=${QUOTA(each)}>
        <${Bar} part=${part(each)} label=${QUOTA(each)} grave=${grave(part(each))}
          text=${`${compact(Math.max(0, each.limit - each.used))} of ${compact(each.limit)} left`} />
        <span class="quota-name">${QUOTA(each)}</span>
      </li>`,
    )}
  </ul>`;
}

export function Spills({ live }) {
  const moved = live.moved;
  return html`<${Panel} id="spills" title="Spills and moves" about=${`Answers that went another way, ${perMinute(live)}`}>
    ${live.spills.length
      ? html`<ul class="pairs">
          ${live.spills.map(
            (each) => html`<li key=${each.model + each.reason}><span>${each.model}: ${spill(each.reason)}</span><b>${plural(each.requests, "request")}</b></li>`,
          )}
        </ul>`
      : html`<${Empty}>No request was answered by another model than the one it asked for.<//>`}
    <p class="line"><span>Streams moved to another replica</span><b>${count(moved)}</b></p>
  <//>`;
}
