// Lines over the last quarter of an hour. The same figures are there as a table, for whoever cannot
// see or hover.
/* global uPlot */
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { clock } from "./format.js";

// Colours (Okabe and Ito) and dashes: lines differ in both.
const LINES = [
  { token: "--line-1", dash: [] },
  { token: "--line-2", dash: [8, 4] },
  { token: "--line-3", dash: [2, 3] },
  { token: "--line-4", dash: [10, 3, 2, 3] },
];
const DARK = window.matchMedia("(prefers-color-scheme: dark)");
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(width, height, lines, tick, bounds) {
  const ink = token("--muted");
  const grid = { stroke: token("--rule"), width: 1 };
  const axis = { stroke: ink, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 } },
    padding: [10, 20, 0, 0],
    scales: { y: { range: (_, low, high) => bounds(low ?? 0, high ?? 0) } },
    axes: [
      { ...axis, size: 30, space: 70, values: (_, at) => at.map((s) => clock(s).slice(0, 5)) },
      { ...axis, size: 52, space: 36, values: (_, at) => at.map((n) => tick(n)) },
    ],
    series: [
      {},
      ...lines.map((line, i) => ({
        label: line.name,
        stroke: token(LINES[i % LINES.length].token),
        dash: LINES[i % LINES.length].dash,
        width: 2,
        spanGaps: true,
        points: { show: line.values.filter((n) => n != null).length < 3 },
      })),
    ],
  };
}

const fromZero = (low, high) => [0, high > 0 ? high * 1.1 : 1];

function Swatch({ index }) {
  const line = LINES[index % LINES.length];
  return html`<svg class="swatch swatch-${(index % LINES.length) + 1}" width="26" height="8" aria-hidden="true">
    <line x1="1" x2="25" y1="4" y2="4" stroke-width="2.5" stroke-dasharray=${line.dash.join(" ")} />
  </svg>`;
}

export function Chart({ title, at, lines, show, tick = show, bounds = fromZero, height = 170 }) {
  const place = useRef(null);
  const drawn = useRef(null);
  const [scheme, setScheme] = useState(DARK.matches);
  const [hovered, setHovered] = useState(null);
  const names = lines.map((line) => line.name).join("|");
  const few = lines.map((line) => line.values.filter((n) => n != null).length < 3).join();

  useEffect(() => {
    const changed = () => setScheme(DARK.matches);
    DARK.addEventListener("change", changed);
    return () => DARK.removeEventListener("change", changed);
  }, []);
  useEffect(() => {
    const made = options(place.current.clientWidth || 300, height, lines, tick, bounds);
    made.hooks = { setCursor: [(plot) => setHovered(plot.cursor.idx ?? null)] };
    const plot = new uPlot(made, [at, ...lines.map((line) => line.values)], place.current);
    drawn.current = plot;
    const follow = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width && width !== plot.width) plot.setSize({ width, height });
    });
    follow.observe(place.current);
    return () => {
      follow.disconnect();
      plot.destroy();
    };
  }, [scheme, names, few]);
  useEffect(() => {
    drawn.current?.setData([at, ...lines.map((line) => line.values)]);
  }, [at, lines]);

  const last = at.length - 1;
  const index = hovered == null || hovered > last ? last : hovered;
  return html`<figure class="chart">
    <figcaption>
      <span class="chart-title">${title}</span>
      <span class="chart-at">${at.length ? (index === last ? "now" : clock(at[index]).slice(0, 5)) : ""}</span>
      <ul class="legend">
        ${lines.map(
          (line, i) => html`<li key=${line.name}>
            <${Swatch} index=${i} />${line.name && html`<span>${line.name}</span> `}<b>${show(line.values[index])}</b>
          </li>`,
        )}
      </ul>
    </figcaption>
    <div ref=${place} class="plot" aria-hidden="true"></div>
    <${Figures} title=${title} at=${at} lines=${lines} show=${show} />
  </figure>`;
}

function Figures({ title, at, lines, show }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(event) => setOpen(event.target.open)}>
    <summary>As a table<span class="unseen">: ${title}</span></summary>
    ${open &&
    html`<div class="scroll" tabindex="0" role="region" aria-label=${`${title}, as a table`}>
      <table>
        <thead>
          <tr>
            <th scope="col">from</th>
            ${lines.map((line) => html`<th scope="col" class="number">${line.name || title}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${at.map(
            (seconds, i) => html`<tr key=${seconds}>
              <th scope="row">${clock(seconds)}</th>
              ${lines.map((line) => html`<td class="number">${show(line.values[i])}</td>`)}
            </tr>`,
          )}
        </tbody>
      </table>
    </div>`}
  </details>`;
}
