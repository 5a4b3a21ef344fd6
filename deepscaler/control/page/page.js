"use strict";
// Draws what deepscaler/control/story.py tells; its first lines say what is in a story. Nothing is sent from here but GET.

const AHEAD_SECONDS = 600;
const PAST_SECONDS = 10800;
const [TIME, LOAD, FORESEEN, RESPONSES, READY, PROPOSED, FLOOR, APPLIED] = [0, 1, 2, 3, 4, 5, 6, 7];
const NAMES = {
  bootstrap: "live past", season: "season", day: "days before", network: "network", analogs: "analogs", all: "all together",
};
const WAYS = {
  together: "several together", together_with_network: "several with the network's quantiles", season: "the season",
  past: "the live past", day: "days before", network: "the network's quantiles", analogs: "the network's analogs",
};
const HELD = /^(held_|unknown_service|conflict|write_failed|rival_|quota)/;
const state = { story: null, range: PAST_SECONDS, pulse: null, heard: 0, skew: 0, charts: [], cards: [] };
const byId = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------------------- words
function make(tag, text, classes) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (classes) element.className = classes;
  return element;
}
function put(parent, ...children) {
  parent.replaceChildren(...children.filter(Boolean));
  return parent;
}
function digits(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}
const percent = (share) => (share === null || share === undefined ? "–" : `${digits(100 * share)} %`);
function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 120) return `${digits(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1).replace(".0", "")} h`;
  return `${Math.round(seconds / 86400)} days`;
}
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// ------------------------------------------------------------------------------------------------------ charts
function window_() {
  const { past, now } = state.story;
  const newest = past.length ? past[past.length - 1][TIME] : Date.now() / 1000;
  const oldest = past.length ? past[0][TIME] : newest - 60;
  const ahead = now && now.band ? AHEAD_SECONDS : 0;
  const first = Math.max(newest - state.range, oldest);
  return [Math.min(first, newest - 60), newest + Math.min(ahead, Math.max(state.range / 3, 120))];
}
function axes(format, small) {
  const common = { stroke: color("soft"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const hour = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const clock = (_, values) => values.map((value) => new Date(1000 * value).toLocaleTimeString([], hour));
  return [
    { ...common, size: small ? 20 : 26, space: small ? 70 : 80, values: clock, grid: { ...common.grid, show: !small } },
    { ...common, size: small ? 30 : 46, space: small ? 24 : 34, values: (_, values) => values.map(format) },
  ];
}
const line = (name, extra) => ({ stroke: color(name), width: 2, points: { show: false }, spanGaps: false, ...extra });
const stepped = () => uPlot.paths.stepped({ align: 1 });
function markNow(plot) {
  const { past } = state.story;
  if (!past.length) return;
  const x = Math.round(plot.valToPos(past[past.length - 1][TIME], "x", true)) + 0.5;
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = color("soft");
  ctx.setLineDash([3, 3]);
  ctx.globalAlpha = 0.6;
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}
// A chart in an element: `describe` makes its options for the colors of now, `data` its columns.
function chart(element, describe, data) {
  const one = { element, plot: null, describe, data };
  one.draw = () => {
    const size = { width: Math.max(element.clientWidth, 40), height: element.clientHeight };
    if (!size.height) return;
    const columns = data();
    if (!one.plot) one.plot = new uPlot({ ...size, ...describe(), legend: { show: false }, hooks: { draw: [markNow] } }, columns, element);
    else one.plot.setData(columns);
    if (one.plot.width !== size.width || one.plot.height !== size.height) one.plot.setSize(size);
  };
  one.renew = () => {
    if (one.plot) one.plot.destroy();
    one.plot = null;
    one.draw();
  };
  one.forget = () => {
    if (one.plot) one.plot.destroy();
    state.charts = state.charts.filter((other) => other !== one);
  };
  state.charts.push(one);
  return one;
}
const xScale = () => ({ time: true, range: () => window_() });
const fromZero = (least) => ({ range: (_, low, high) => [0, Math.max(least, (high || 0) * 1.08)] });
const cursor = { sync: { key: "time" }, y: false, points: { show: false }, drag: { x: false, y: false } };

// Columns over the past and the steps ahead: from each moment, and from each step ahead.
function columns(ofPast, ahead, ofAhead) {
  const { past } = state.story;
  const newest = past.length ? past[past.length - 1][TIME] : 0;
  const steps = [];
  if (ahead) {
    for (let row = 0; row < ofAhead[0].length; row += 1) {
      const time = ahead.from + (row + 1) * ahead.step;
      if (time > newest) steps.push([time, row]);
    }
  }
  const times = [...past.map((moment) => moment[TIME]), ...steps.map(([time]) => time)];
  const behind = ofPast.map((pick) => [...past.map(pick), ...steps.map(() => null)]);
  const before = ofAhead.map((values) => [...past.map(() => null), ...steps.map(([, row]) => values[row])]);
  return [times, ...behind, ...before];
}
function loadColumns() {
  const { now } = state.story;
  const band = now && now.band;
  const edges = band ? [band.low, band.middle, band.high] : [[], [], []];
  return columns([(moment) => moment[LOAD], (moment) => moment[FORESEEN]], band, edges);
}
function loadChart() {
  return {
    scales: { x: xScale(), y: fromZero(1) },
    axes: axes(digits, false),
    cursor,
    series: [
      {},
      line("load"),
      line("before", { width: 1.5, dash: [2, 3] }),
      line("load", { width: 0 }),
      line("load", { dash: [6, 4], width: 1.5 }),
      line("load", { width: 0 }),
    ],
    bands: [{ series: [5, 3], fill: color("band") }],
  };
}
function responseColumns() {
  const { about, past } = state.story;
  const measured = about.entries.map((_, index) => (moment) => (moment[RESPONSES] || [])[index] ?? null);
  const agreed = about.entries.map((entry) => () => entry.sla);
  return [past.map((moment) => moment[TIME]), ...[...measured, ...agreed].map((pick) => past.map(pick))];
}
function responseChart() {
  const { about } = state.story;
  const sla = Math.max(...about.entries.map((entry) => entry.sla));
  return {
    scales: { x: xScale(), y: fromZero(1.25 * sla) },
    axes: axes(span, false),
    cursor,
    series: [
      {},
      ...about.entries.map(() => line("response")),
      ...about.entries.map(() => line("agreed", { dash: [6, 4], width: 1.5 })),
    ],
  };
}
function serviceColumns(index) {
  const { now } = state.story;
  const plan = now && now.plan && now.plan.services[index] ? now.plan : null;
  const edges = plan ? plan.services[index] : [[], [], []];
  const picks = [READY, PROPOSED, FLOOR, APPLIED].map((row) => (moment) => (moment[row] || [])[index] ?? null);
  return columns(picks, plan, [edges[0], edges[1], edges[2]]);
}
function serviceChart() {
  return {
    scales: { x: xScale(), y: fromZero(2) },
    axes: axes((value) => (Number.isInteger(value) ? value : ""), true),
    cursor,
    series: [
      {},
      line("ready", { width: 0, fill: color("ready"), paths: stepped() }),
      line("proposed", { width: 1.6, paths: stepped() }),
      line("floor", { width: 1.3, dash: [2, 3], paths: stepped() }),
      line("applied", { width: 2.4, paths: stepped() }),
      line("load", { width: 0, paths: stepped() }),
      line("load", { width: 1.3, dash: [5, 3], paths: stepped() }),
      line("load", { width: 0, paths: stepped() }),
    ],
    bands: [{ series: [7, 5], fill: color("band") }],
  };
}

// --------------------------------------------------------------------------------------------------------- now
function tile(title, value, unit, note, kind) {
  const box = make("div", null, "tile");
  const number = make("b", value, kind);
  if (unit) number.append(" ", make("small", unit));
  box.append(make("span", title), number, make("span", note));
  return box;
}
function showTiles() {
  const { about, past, now } = state.story;
  if (!past.length) return;
  const newest = past[past.length - 1];
  const tiles = [];
  const soon = now && now.band ? now.band.middle[Math.round(300 / now.band.step) - 1] : null;
  const early = newest[FORESEEN] === null ? "requests per second" : `${digits(newest[FORESEEN])} were foreseen 5 min ago`;
  tiles.push(tile("Load", digits(newest[LOAD]), "/s", soon === null || soon === undefined ? early : `in 5 min ${digits(soon)}/s`));
  const shares = about.entries.map((entry, index) => (newest[RESPONSES] || [])[index] / entry.sla);
  const worst = shares.findIndex((share) => share === Math.max(...shares.filter((other) => !Number.isNaN(other))));
  if (worst >= 0) {
    const entry = about.entries[worst];
    const kind = shares[worst] > 1 ? "bad" : shares[worst] > 0.8 ? "warn" : "good";
    tiles.push(tile("Response", span(newest[RESPONSES][worst]), null, `${span(entry.sla)} agreed for ${entry.service}`, kind));
  }
  const known = past.filter((moment) => (moment[RESPONSES] || []).some((value) => value !== null));
  const slow = known.filter((moment) => about.entries.some((entry, index) => moment[RESPONSES][index] > entry.sla));
  const length = past[past.length - 1][TIME] - past[0][TIME];
  if (known.length) tiles.push(tile("Too slow", percent(slow.length / known.length), null, `of the last ${span(length)}`, slow.length ? "warn" : "good"));
  const sum = (row) => (newest[row] || []).reduce((total, value) => total + (value || 0), 0);
  const ready = sum(READY);
  const total = now && newest[APPLIED] ? sum(APPLIED) : ready;
  tiles.push(tile("Replicas", `${total}`, null, `${ready} are ready`));
  if (now) {
    const judged = now.sources.find((source) => source.name === "all") || now.sources[0];
    const five = judged && judged.done.find((done) => done.lead === 300);
    if (five) tiles.push(tile("Forecast", percent(five.error), null, `off, 5 min ahead (${five.count} judged)`));
    tiles.push(tile("Tick", span(now.took), null, `${span(now.late)} late, each ${span(about.period)}`));
  }
  put(byId("tiles"), ...tiles);
}
function showHead() {
  const { about, now } = state.story;
  byId("app").textContent = about.app;
  document.title = `${about.app} · DeepScaler`;
  const chip = (id, text, kind) => {
    byId(id).hidden = !text;
    byId(id).textContent = text || "";
    byId(id).className = kind || "";
  };
  const mode = (state.pulse && state.pulse.mode) || (now && now.mode);
  const words = { act: "acting", dry_run: "in the shadow: writes nothing", shadow: "in the shadow: writes nothing", advise: "advising", standby: "standby: another replica leads" };
  chip("policy", about.policy);
  chip("mode", mode && (words[mode] || mode), mode === "act" ? "acting" : "shadow");
  chip("version", `DeepScaler ${about.version}`);
  byId("headline").textContent = now ? now.headline : about.note || "Waiting for the first tick …";
  byId("foreseen").textContent = now ? foreseen(now) : "";
}
// Which source decides, and what it foresees five minutes ahead, in a sentence.
function foreseen({ band, sources }) {
  if (!band) return "";
  const row = Math.min(Math.round(300 / band.step), band.middle.length) - 1;
  const deciding = sources.filter((source) => source.weight > 0);
  const share = (source) => (deciding.length > 1 ? ` (${percent(source.weight)})` : "");
  const named = deciding.map((source) => `the ${NAMES[source.name] || source.name}${share(source)}`);
  const who = named.length > 1 ? `${named.slice(0, -1).join(", ")} and ${named[named.length - 1]}` : named[0] || "the policy";
  const range = `${digits(band.low[row])} to ${digits(band.high[row])}`;
  return `In ${span((row + 1) * band.step)} the load is foreseen at ${digits(band.middle[row])}/s (${range}) by ${who}.`;
}
function showState() {
  const field = byId("state");
  const heard = (Date.now() - state.heard) / 1000;
  const newest = state.story && state.story.past.length ? state.story.past[state.story.past.length - 1][TIME] : null;
  let [text, kind] = ["connecting …", "waiting"];
  if (state.heard && heard > 15) [text, kind] = [`no connection for ${span(heard)}`, "ill"];
  else if (state.pulse && state.pulse.healthy === false) [text, kind] = ["no tick was completed lately", "ill"];
  else if (newest !== null && state.pulse) {
    const age = Math.max(Math.round(Date.now() / 1000 + state.skew - newest), 0);
    [text, kind] = [state.pulse.past ? "a recording" : `newest tick ${span(age)} ago`, "well"];
  }
  if (field.textContent !== text) field.textContent = text;
  field.className = `state ${kind}`;
}

// ---------------------------------------------------------------------------------------------------- services
const seen = "IntersectionObserver" in window ? new IntersectionObserver((found) => found.forEach((one) => {
  const card = state.cards.find((other) => other.box === one.target);
  if (card) {
    card.seen = one.isIntersecting;
    if (card.seen) card.chart.draw();
  }
}), { rootMargin: "200px" }) : null;
function makeCards() {
  state.cards.forEach((card) => card.chart.forget());
  state.cards = state.story.about.services.map((name, index) => {
    const box = make("article", null, "service");
    const head = make("h3");
    const title = make("span", name);
    title.title = name;
    const count = make("span", null, "count");
    head.append(title, count);
    const why = make("p");
    const area = make("div", null, "chart");
    area.setAttribute("role", "img");
    area.setAttribute("aria-label", `Chart of the replicas of ${name}`);
    box.append(head, why, area);
    const drawn = chart(area, serviceChart, () => serviceColumns(index));
    return { box, name, index, count, why, chart: drawn, seen: !seen };
  });
  put(byId("cards"), ...state.cards.map((card) => card.box));
  if (seen) state.cards.forEach((card) => seen.observe(card.box));
  filterCards();
}
function filterCards() {
  const wanted = byId("filter").value.trim().toLowerCase();
  state.cards.forEach((card) => {
    card.box.hidden = !card.name.toLowerCase().includes(wanted);
  });
  byId("none").hidden = state.cards.some((card) => !card.box.hidden);
}
function showCards() {
  const { now, past } = state.story;
  const newest = past.length ? past[past.length - 1] : null;
  state.cards.forEach((card) => {
    const told = now && now.services[card.index];
    const ready = newest && newest[READY] ? newest[READY][card.index] : null;
    const moves = told && told.target !== told.current;
    put(card.count, make("span", moves ? `${told.current} → ${told.target}` : `${told ? told.target : ready ?? "–"}`));
    if (told && told.ready < told.target) card.count.append(" ", make("small", `${told.ready} ready`));
    const text = told ? told.why.replace(`${card.name} `, "") : "";
    card.why.textContent = text && text[0].toUpperCase() + text.slice(1);
    card.why.title = told ? told.reason : "";
    card.box.className = `service${moves ? " moves" : ""}${told && HELD.test(told.reason) ? " doubt" : ""}`;
  });
}

// ------------------------------------------------------------------------------------------------------ tables
function table(element, heads, rows) {
  const head = make("thead");
  const first = make("tr");
  heads.forEach((text) => {
    const cell = make("th", text);
    cell.scope = "col";
    first.append(cell);
  });
  head.append(first);
  const body = make("tbody");
  rows.forEach((cells) => {
    const row = make("tr");
    cells.forEach((content, place) => {
      const cell = make(place ? "td" : "th");
      if (!place) cell.scope = "row";
      if (content instanceof Node) cell.append(content);
      else if (content && typeof content === "object") {
        cell.textContent = content.text;
        cell.className = content.kind || "";
      } else cell.textContent = content;
      row.append(cell);
    });
    body.append(row);
  });
  put(element, head, body);
}
function followed(trials) {
  const behind = trials.filter((way) => way.behind > 0 && WAYS[way.name]).map((way) => `${WAYS[way.name]} ${span(way.behind)} more`);
  if (!behind.length) return "";
  return `Followed on paper, ${WAYS[trials[0].name]} would have cost least lately. In time of holding what was needed: ${behind.join(", ")}.`;
}
function showSources() {
  const { now } = state.story;
  const leads = [60, 300, 600];
  const rows = (now ? now.sources : []).map((source) => {
    const weight = make("span");
    if (source.weight === null) weight.textContent = "";
    else {
      const bar = make("meter");
      bar.value = source.weight;
      bar.setAttribute("aria-hidden", "true");
      weight.append(bar, ` ${percent(source.weight)}`);
    }
    const done = leads.map((lead) => source.done.find((one) => one.lead === lead));
    const best = done[1] || done[0];
    return [
      NAMES[source.name] || source.name,
      weight,
      ...done.map((one) => (one ? percent(one.error) : "–")),
      best && best.inside !== null ? percent(best.inside) : "",
    ];
  });
  const box = byId("sources");
  if (!rows.length) {
    put(box, make("p", state.story.about.policy ? "This policy foresees nothing that could be judged." : "No controller runs yet.", "quiet"));
  } else {
    const drawn = make("table");
    table(drawn, ["source", "weight", "off, 1 min", "5 min", "10 min", "in the band"], rows);
    put(box, drawn);
  }
  byId("trials").textContent = followed(now ? now.trials : []);
  const period = now && now.season;
  byId("season").textContent = !now || !now.band ? "" : period ? `The load repeats every ${span(period)}.` : "No season was found in the load: its past is drawn on as a whole.";
  const budget = now && now.budget;
  byId("budget").hidden = !budget;
  byId("budget").textContent = budget ? `Budget: ${digits(budget.consumed)} of ${digits(budget.asked)} ${budget.unit} are used up${
    budget.note ? ` (${budget.note}; a shortage costs ${digits(budget.price)})` : ""}.` : "";
}
function showInputs() {
  const { now } = state.story;
  if (!now) {
    put(byId("inputs"), make("p", "Nothing is known before the first tick.", "quiet"));
    return;
  }
  const { oldest, partial, upstreams, counters, ticks, stale_after: stale } = now.inputs;
  const rows = [];
  if (oldest) {
    const old = oldest.age === null || oldest.age > stale;
    rows.push(["oldest metrics", { text: oldest.age === null ? `none of ${oldest.service}` : `${span(oldest.age)} (${oldest.service})`, kind: old ? "bad" : "" }]);
  }
  upstreams.forEach((one) => {
    const failed = one.errors ? `, ${one.errors} failed` : "";
    rows.push([`requests to ${one.name}`, { text: `${one.requests}, ${span(one.mean)} on average${failed}`, kind: one.errors ? "warn" : "" }]);
  });
  const names = { failed_ticks: "ticks that failed", metrics_failures: "times without metrics", held: "services held, over all ticks", failed_writes: "writes refused", foreign_edits: "edits by others", lost_rows: "rows lost", clock_jumps: "jumps of the clock" };
  rows.push(["ticks completed", `${ticks}`]);
  const counted = [["partial answers", partial], ...Object.entries(counters).map(([name, count]) => [names[name] || name, count])];
  counted.filter(([, count]) => count).forEach(([name, count]) => rows.push([name, { text: `${count}`, kind: "warn" }]));
  const none = counted.filter(([, count]) => !count).map(([name]) => name);
  const drawn = make("table", null, "pairs");
  table(drawn, ["", ""], rows);
  drawn.tHead.remove();
  put(byId("inputs"), drawn, none.length ? make("p", `None so far: ${none.join(", ")}.`, "quiet") : null);
}
function showTable() {
  const { about, past, now } = state.story;
  const newest = past.length ? past[past.length - 1] : [];
  const cell = (row, index) => digits((newest[row] || [])[index] ?? null);
  const rows = about.services.map((name, index) => {
    const told = now && now.services[index];
    return [
      name,
      told ? `${told.current}` : "–",
      told ? `${told.target}` : "–",
      cell(READY, index),
      cell(PROPOSED, index),
      cell(FLOOR, index),
      { text: told ? told.reason : "", kind: "text" },
      { text: told ? told.why : "", kind: "text" },
    ];
  });
  table(byId("table"), ["service", "had", "gets", "ready", "proposed", "floor", "reason", "why"], rows);
}

// ------------------------------------------------------------------------------------------------------- graph
const SVG = "http://www.w3.org/2000/svg";
function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  if (text) element.textContent = text;
  return element;
}
// Columns by the number of calls from an entry; what nobody calls stands in the last column.
function places(services, entries, calls) {
  const depth = services.map(() => Infinity);
  let front = services.map((_, index) => index).filter((index) => entries.has(services[index]));
  front.forEach((index) => { depth[index] = 0; });
  for (let level = 1; front.length; level += 1) {
    const next = new Set();
    calls.forEach(([caller, callee]) => {
      if (front.includes(caller) && depth[callee] === Infinity) next.add(callee);
    });
    next.forEach((index) => { depth[index] = level; });
    front = [...next];
  }
  const deepest = Math.max(0, ...depth.filter(Number.isFinite));
  const layers = [];
  services.forEach((_, index) => {
    const level = Number.isFinite(depth[index]) ? depth[index] : deepest + 1;
    (layers[level] = layers[level] || []).push(index);
  });
  const filled = layers.filter(Boolean);
  const height = Math.max(150, 34 * Math.max(...filled.map((layer) => layer.length)) + 14);
  const found = [];
  filled.forEach((layer, column) => layer.forEach((index, row) => {
    const wide = filled.length > 1 ? (column * 320) / (filled.length - 1) : 160;
    found[index] = [12 + wide, (height * (row + 0.5)) / layer.length];
  }));
  return [found, height];
}
function drawGraph(box, edges, known) {
  const { about, now } = state.story;
  const [spots, height] = places(about.services, new Set(about.entries.map((entry) => entry.service)), now.model.calls);
  const drawing = shape("svg", { viewBox: `0 0 470 ${height}`, role: "img", "aria-label": `${edges.length} edges between ${about.services.length} services` });
  [...edges].reverse().forEach(([from, to, weight]) => {
    const [[x, y], [u, v]] = [spots[from], spots[to]];
    const bow = x === u ? -56 : 0;
    const path = `M${x},${y} C${x + (u - x) / 2 + bow},${y} ${x + (u - x) / 2 + bow},${v} ${u},${v}`;
    const drawn = shape("path", { d: path, "stroke-width": 0.8 + 3 * Math.sqrt(weight), "stroke-opacity": 0.25 + 0.55 * Math.sqrt(weight) });
    if (!known.has(`${from} ${to}`)) drawn.setAttribute("class", "new");
    drawn.append(shape("title", {}, `${about.services[from]} → ${about.services[to]}: ${percent(weight)} of the heaviest`));
    drawing.append(drawn);
  });
  const entries = new Set(about.entries.map((entry) => entry.service));
  about.services.forEach((name, index) => {
    const [x, y] = spots[index];
    drawing.append(shape("circle", { cx: x, cy: y, r: 5.5, class: entries.has(name) ? "node entry" : "node" }));
    const first = x < 25;
    const spot = first ? { x: x - 8, y: y - 12 } : { x: x + 10, y: y + 4 };
    drawing.append(shape("text", spot, name.length > 22 ? `${name.slice(0, 21)}…` : name));
  });
  put(box, drawing);
}
function showModel() {
  const { about, now } = state.story;
  const model = now && now.model;
  byId("model").hidden = !model;
  if (!model || byId("model").dataset.drawn === model.sha256) return;
  byId("model").dataset.drawn = model.sha256;
  const pairs = (edges) => edges.map(([from, to]) => `${from} ${to}`);
  if (about.services.length <= 60) {
    drawGraph(byId("calls"), model.calls, new Set(pairs(model.calls)));
    drawGraph(byId("influence"), model.influence, new Set(pairs(model.calls)));
  } else {
    const list = (edges) => {
      const drawn = make("table");
      table(drawn, ["caller", "callee", "weight"], edges.slice(0, 20).map(([from, to, weight]) => [about.services[from], { text: about.services[to], kind: "text" }, percent(weight)]));
      return drawn;
    };
    put(byId("calls"), list(model.calls));
    put(byId("influence"), list(model.influence));
  }
  const common = pairs(model.influence).filter((pair) => pairs(model.calls).includes(pair)).length;
  const age = model.until ? ` It was trained on metrics up to ${new Date(1000 * model.until).toLocaleString()}.` : "";
  const added = model.influence.length - common;
  byId("bundle").textContent = `Of ${model.calls.length} recorded calls ${common} are among the learned influences; ${added} more were learned (orange). Bundle ${model.sha256.slice(0, 12)}.${age}`;
}

// --------------------------------------------------------------------------------------------------------- all
function show() {
  if (!state.story) return;
  showHead();
  showTiles();
  showCards();
  showSources();
  showInputs();
  showModel();
  if (document.querySelector("details").open) showTable();
  state.charts.forEach((one) => {
    const card = state.cards.find((other) => other.chart === one);
    if (!card || card.seen) one.draw();
  });
  showState();
}
function begin() {
  if (!state.charts.length) {
    chart(byId("load"), loadChart, loadColumns);
    chart(byId("response"), responseChart, responseColumns);
  }
  makeCards();
}
function take(event) {
  const told = JSON.parse(event.data);
  state.heard = Date.now();
  if (event.type === "story") {
    const same = state.story && JSON.stringify(state.story.about) === JSON.stringify(told.about);
    state.story = told;
    if (!same) {
      state.charts.forEach((one) => one.plot && one.plot.destroy());
      state.charts = [];
      begin();
    }
  } else if (state.story) {
    const oldest = told.past.length ? told.past[told.past.length - 1][TIME] - PAST_SECONDS : -Infinity;
    state.story.past = [...state.story.past.filter((moment) => moment[TIME] >= oldest), ...told.past];
    state.story.now = told.now;
  }
  document.body.dataset.updates = 1 + Number(document.body.dataset.updates || 0);
  show();
}
function listen() {
  const source = new EventSource("events");
  source.addEventListener("story", take);
  source.addEventListener("step", take);
  source.addEventListener("pulse", (event) => {
    state.pulse = JSON.parse(event.data);
    state.heard = Date.now();
    state.skew = state.pulse.time - Date.now() / 1000;
    if (state.story) showHead();
    showState();
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}
document.querySelectorAll(".ranges button").forEach((button) => button.addEventListener("click", () => {
  state.range = Number(button.dataset.seconds);
  document.querySelectorAll(".ranges button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  show();
}));
byId("filter").addEventListener("input", filterCards);
document.querySelector("details").addEventListener("toggle", () => state.story && showTable());
new ResizeObserver(() => state.charts.forEach((one) => one.plot && one.draw())).observe(document.body);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  state.charts.forEach((one) => one.plot && one.renew());
  byId("model").dataset.drawn = "";
  show();
});
setInterval(showState, 1000);
listen();
