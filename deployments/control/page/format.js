// Numbers as people read them, each with its unit.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const NONE = "–";

export const count = (n) => (n == null ? NONE : whole.format(n));
export const compact = (n) => (n == null ? NONE : n < 10000 ? whole.format(n) : short.format(n));

export function rate(n, unit) {
  if (n == null) return NONE;
  const digits = n === 0 || n >= 100 ? 0 : n >= 10 ? 1 : 2;
  return `${n.toFixed(digits)} ${unit}`;
}

export function share(part, digits = 1) {
  if (part == null) return NONE;
  const shown = (part * 100).toFixed(digits);
  // 99.96 % is not all of them.
  if (part < 1 && Number(shown) === 100) return `> ${(100 - 10 ** -digits).toFixed(digits)} %`;
  return `${Number(shown) === 100 ? "100" : shown} %`;
}

export function usd(amount) {
  if (amount == null) return NONE;
  const n = Number(amount);
  if (n === 0) return "$0";
  const digits = Math.abs(n) >= 1 ? 2 : Math.min(9, 2 - Math.floor(Math.log10(Math.abs(n))));
  const text = n.toLocaleString("en", { minimumFractionDigits: Math.min(2, digits), maximumFractionDigits: digits });
  return text.startsWith("-") ? `-$${text.slice(1)}` : `$${text}`;
}

export function time(ms) {
  if (ms == null) return NONE;
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const REASONS = {
  "least-expected-work": "least expected work",
  "least-outstanding-tokens": "fewest tokens outstanding",
  "round-robin": "next in turn",
  p2c: "less busy of two drawn by lot",
  random: "drawn by lot",
  weighted: "best weighted score",
};
export const reason = (name) => REASONS[name] || name.replaceAll("-", " ");

const SPILLS = {
  overload: "the model was overloaded",
  failure: "the model's replicas had failed",
  cost: "the tenant's budget said so",
  capacity: "the student is cheaper than one more replica",
  "long-tail": "it is about a long-tail entity",
  adapter: "the adapter had no slot",
  cascade: "the student was asked first",
};
export const spill = (name) => SPILLS[name] || name;

/** Replicas have long names; their last part tells them apart. */
export const replica = (id) => (id.includes("#") ? id.slice(id.lastIndexOf("#") + 1) : id);

/** What a policy weighs: tokens, or a small score. */
export const cost = (n) => (Math.abs(n) < 10 ? n.toFixed(2) : compact(Math.round(n)));

/** Why a replica was chosen, in few words. */
export function why(row) {
  if (!row.reason) return "";
  const parts = [reason(row.reason)];
  if (row.cost != null && row.next_cost != null) {
    parts[0] += `: ${cost(row.cost)}, next ${cost(row.next_cost)}`;
  } else if (row.candidates === 1) {
    parts.push("alone there");
  }
  if (row.held_blocks) parts.push(`${plural(row.held_blocks, "block")} cached`);
  return parts.join(" · ");
}
