// Asks the admin and tenant API with the key that was pasted in. The key is kept for this tab only,
// and never stands in an address.

const KEPT = "weir-key";
const PATIENCE_MS = 10000;

export const savedKey = () => sessionStorage.getItem(KEPT) || "";
export const saveKey = (key) => sessionStorage.setItem(KEPT, key);
export const forgetKey = () => sessionStorage.removeItem(KEPT);

/** What went wrong: `status` 0 is no answer at all. */
export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(key, path) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: { authorization: `Bearer ${key}`, accept: "application/json" },
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Failure(0, "The platform does not answer.");
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body;
  throw new Failure(answer.status, body?.error?.message || `The answer's status is ${answer.status}.`);
}

/** Whose figures are shown: the operator's are all; a tenant's key shows that tenant's. */
export class View {
  constructor(operator, tenant = null) {
    this.operator = operator;
    this.tenant = tenant;
  }

  get prefix() {
    if (!this.operator) return "/v1/tenant";
    return this.tenant ? `/admin/v1/tenants/${encodeURIComponent(this.tenant)}` : "/admin/v1";
  }

  get whole() {
    return this.operator && !this.tenant;
  }
}

/** Which view a key opens. */
export async function viewOf(key) {
  try {
    await ask(key, "/admin/v1/live");
    return new View(true);
  } catch (failure) {
    if (failure.status !== 403) throw failure;
  }
  await ask(key, "/v1/tenant/live");
  return new View(false);
}

/** The month's money, and this hour's: of everything, or of one tenant. */
export async function askMoney(key, view) {
  const month = `${new Date().toISOString().slice(0, 7)}-01`;
  if (view.whole) {
    const [whole, hour] = await Promise.all([
      ask(key, `/admin/v1/cost?by=tenant&since=${month}`),
      ask(key, "/admin/v1/cost?by=tenant&since=1h"),
    ]);
    return { month, whole, hour };
  }
  const used = await ask(key, `${view.prefix}/usage?by=model&since=${month}`);
  return { month, used };
}
