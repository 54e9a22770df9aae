// The page: sign-in, a look every two seconds, and what is wrong in plain words.
import { html, render, useCallback, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask, askMoney, forgetKey, saveKey, savedKey, View, viewOf } from "./api.js";
import { plural } from "./format.js";
import { Charts, Money, Slo, Spills, Tiles } from "./panels.js";
import { Followed } from "./request.js";
import { Queues, Recent, Replicas, Tenants } from "./tables.js";

const LOOK_MS = 2000;
const MOST_MS = 15000;
const MONEY_MS = 30000;

function App() {
  const [key, setKey] = useState(savedKey());
  const [view, setView] = useState(null);
  const [said, setSaid] = useState("");
  const signOut = useCallback((why = "") => {
    forgetKey();
    setKey("");
    setView(null);
    setSaid(why);
  }, []);
  const signIn = useCallback(async (given) => {
    try {
      const opened = await viewOf(given);
      saveKey(given);
      setKey(given);
      setView(opened);
      setSaid("");
    } catch (failure) {
      setSaid(failure.message);
      if (failure.status === 401 || failure.status === 403) forgetKey();
    }
  }, []);
  useEffect(() => {
    if (key && !view) signIn(key);
  }, []);
  if (!view) return html`<${SignIn} signIn=${signIn} said=${said} />`;
  return html`<${Board} keyOf=${key} view=${view} setView=${setView} signOut=${signOut} />`;
}

function SignIn({ signIn, said }) {
  const [asking, setAsking] = useState(false);
  const [given, setGiven] = useState("");
  const go = async (event) => {
    event.preventDefault();
    if (!given.trim() || asking) return;
    setAsking(true);
    await signIn(given.trim());
    setAsking(false);
  };
  return html`<main class="sign-in">
    <form onSubmit=${go}>
      <h1><img src="/dashboard/icon.svg" alt="" width="34" height="34" />weir</h1>
      <p>See what your platform does at this moment.</p>
      <label for="key">API key</label>
      <input id="key" type="password" autocomplete="off" spellcheck="false" value=${given} aria-describedby="key-about" aria-invalid=${said ? "true" : "false"}
        onInput=${(event) => setGiven(event.target.value)} />
      <p id="key-about" class="about">The operator's key (<code>weir admin key</code>) shows everything; a tenant's key shows that tenant. It stays in this tab until you sign out or close it.</p>
      ${said && html`<p class="alert" role="alert"><span aria-hidden="true">✕ </span>${said}</p>`}
      <button type="submit" class="main" disabled=${asking}>${asking ? "Asking…" : "Sign in"}</button>
    </form>
  </main>`;
}

/** Calls `look` again and again while the page is seen and not paused. */
function useLooks(look, periodMs, paused, again) {
  const latest = useRef(look);
  latest.current = look;
  useEffect(() => {
    if (paused) return undefined;
    let timer;
    let over = false;
    let misses = 0;
    const round = async () => {
      if (document.visibilityState === "visible") {
        const well = await latest.current();
        misses = well ? 0 : misses + 1;
      }
      if (!over) timer = setTimeout(round, Math.min(MOST_MS, periodMs * 2 ** Math.min(misses, 4)));
    };
    const seen = () => {
      if (document.visibilityState === "visible") {
        clearTimeout(timer);
        round();
      }
    };
    document.addEventListener("visibilitychange", seen);
    round();
    return () => {
      over = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [paused, again]);
}

const ofHash = () => decodeURIComponent(location.hash.match(/^#request=(.+)$/)?.[1] || "");

function Board({ keyOf, view, setView, signOut }) {
  const [live, setLive] = useState(null);
  const [money, setMoney] = useState(null);
  const [wrong, setWrong] = useState("");
  const [paused, setPaused] = useState(false);
  const [wanted, setWanted] = useState(ofHash());

  const shown = useRef(view.prefix);
  shown.current = view.prefix;
  useLooks(
    async () => {
      const prefix = view.prefix;
      try {
        const body = await ask(keyOf, `${prefix}/live`);
        if (shown.current === prefix) setLive(body);
        setWrong("");
        return true;
      } catch (failure) {
        if (failure.status === 401) signOut("This key is not valid any more.");
        setWrong(failure.message);
        return false;
      }
    },
    LOOK_MS,
    paused,
    view.prefix,
  );
  useLooks(
    async () => {
      const prefix = view.prefix;
      try {
        const body = await askMoney(keyOf, view);
        if (shown.current === prefix) setMoney({ ...body, prefix });
        return true;
      } catch (failure) {
        if (shown.current === prefix) setMoney((kept) => (kept && !kept.failed && kept.prefix === prefix ? kept : { failed: failure.message, prefix }));
        return false;
      }
    },
    MONEY_MS,
    paused,
    view.prefix,
  );
  useEffect(() => {
    const changed = () => setWanted(ofHash());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);

  const choose = (tenant) => {
    setLive(null);
    setMoney(null);
    setView(new View(true, tenant || null));
    window.scrollTo(0, 0);
  };
  const follow = (request) => {
    location.hash = `request=${encodeURIComponent(request)}`;
  };
  const close = () => {
    history.replaceState(null, "", location.pathname);
    setWanted("");
    document.getElementById("find")?.focus();
  };
  const cents = money && money.prefix === view.prefix ? money : null;
  return html`<a class="skip" href="#content">Skip to the figures</a>
    <${Head} live=${live} view=${view} wrong=${wrong} paused=${paused} setPaused=${setPaused} signOut=${signOut} choose=${choose} />
    <main id="content" tabindex="-1">
      <h1 class="unseen">weir, live</h1>
      ${wrong && html`<p class="alert" role="alert"><span aria-hidden="true">✕ </span>${wrong} ${live ? `The figures are from ${new Date(live.at_s * 1000).toLocaleTimeString("en-GB")}.` : ""} Trying again.</p>`}
      ${live && live.gateways === 0 && html`<p class="notice" role="status">No gateway has told anything yet. That takes two seconds after the page is opened; longer means that gateways do not reach Redis.</p>`}
      ${!live && !wrong && html`<p class="empty">Asking…</p>`}
      ${live && html`
        <${Tiles} live=${live} />
        <div class="panels">
          <${Charts} series=${live.series} />
          <${Slo} live=${live} />
          <${Money} money=${cents} live=${live} view=${view} />
          <div class="stack">
            ${live.queues && html`<${Queues} queues=${live.queues} />`}
            <${Spills} live=${live} />
          </div>
          ${live.replicas && html`<${Replicas} replicas=${live.replicas} />`}
          ${view.whole && html`<${Tenants} live=${live} choose=${choose} />`}
          <${Recent} live=${live} view=${view} follow=${follow} followed=${wanted} />
          ${wanted && html`<${Followed} keyOf=${keyOf} view=${view} wanted=${wanted} close=${close} />`}
        </div>`}
    </main>
    <footer><a href="/admin/v1/docs">API</a> <span>The figures of this page are JSON at <code>${view.prefix}/live</code>.</span></footer>`;
}

function Head({ live, view, wrong, paused, setPaused, signOut, choose }) {
  const state = wrong ? "away" : paused ? "paused" : live ? "live" : "asking";
  const words = { away: "✕ no answer", paused: "❚❚ paused", live: "● live", asking: "… asking" };
  const links = [["slo", "SLO"], ["cost", view.whole ? "Cost" : "Spending"], ...(view.whole ? [["replicas", "Replicas"], ["tenants", "Tenants"]] : []), ["requests", "Requests"]];
  return html`<header class="head">
    <span class="brand"><img src="/dashboard/icon.svg" alt="" width="26" height="26" />weir</span>
    <span class=${`state ${state}`}>${words[state]}${live && state === "live" ? html`<small>${plural(live.gateways, "gateway")}</small>` : ""}</span>
    <nav aria-label="Sections">
      ${links.map(([id, name]) => html`<a href=${`#${id}`} onClick=${(event) => jump(event, id)}>${name}</a>`)}
    </nav>
    <span class="who">
      ${view.tenant
        ? html`tenant <b>${view.tenant}</b> <button type="button" class="quiet" onClick=${() => choose("")}>Show all</button>`
        : html`<b>${view.operator ? "operator" : live?.tenant || "tenant"}</b>`}
      <button type="button" class="quiet" aria-pressed=${paused ? "true" : "false"} onClick=${() => setPaused(!paused)}>${paused ? "Go on" : "Pause"}</button>
      <button type="button" class="quiet" onClick=${() => signOut()}>Sign out</button>
    </span>
  </header>`;
}

// The address keeps a followed request; jumping to a section leaves it alone.
function jump(event, id) {
  const section = document.getElementById(id);
  if (!section) return;
  event.preventDefault();
  section.scrollIntoView({ block: "start" });
  section.setAttribute("tabindex", "-1");
  section.focus({ preventScroll: true });
}

render(html`<${App} />`, document.getElementById("app"));
