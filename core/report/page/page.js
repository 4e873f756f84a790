"use strict";
/* The page: theme, charts, and a table of samples of which only the rows in view exist. Texts are only ever set as text. */

const get = (id) => document.getElementById(id);
const HEIGHT = 30; // pixels of a row, as in the style sheet
const PAPER = 700; // pixels of a chart in print: A4 and Letter upright with a browser's own margins have a few more

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/* Theme */

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);

function toggleTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  paint();
}

/* Charts */

const charts = JSON.parse(get("charts").textContent);
const drawn = new Map();

function coloured(layout) {
  const style = getComputedStyle(root);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line };
  const axes = Object.fromEntries(["xaxis", "yaxis"].map((name) => [name, { ...axis, automargin: true, ...layout[name] }]));
  const modebar = { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink };
  return { autosize: true, margin: { t: 36, r: 20, b: 50, l: 50 }, ...layout, ...axes, modebar, font: { color: ink, size: 12 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
}

/* The library is read for the first chart that is drawn: that takes up to seconds, and the samples need not wait for it */
function library() {
  if (!("Plotly" in window)) document.head.append(element("script", get("plotly").textContent));
}

function draw(id, size = {}) {
  library();
  const views = charts[id];
  const select = get(`${id}-view`);
  const view = views[select ? select.selectedIndex : 0];
  drawn.set(id, true);
  Plotly.react(get(id), view.data, { ...coloured(view.layout), ...size }, { displaylogo: false, responsive: true });
}

function paint() {
  for (const id of drawn.keys()) draw(id);
}

/* Paper is white, and has every chart */
function printing() {
  const theme = root.dataset.theme;
  root.dataset.theme = "light";
  for (const id of Object.keys(charts)) draw(id, { width: PAPER });
  addEventListener("afterprint", () => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    paint();
  }, { once: true });
}

/* A chart is drawn when it comes into view */
function watchCharts() {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !drawn.has(entry.target.id)) draw(entry.target.id);
  }, { rootMargin: "400px" });
  for (const id of Object.keys(charts)) {
    watcher.observe(get(id));
    get(`${id}-view`)?.addEventListener("change", () => draw(id));
  }
}

/* Samples */

class Table {
  constructor(samples) {
    this.samples = samples;
    this.rows = [];
    this.at = 0; // place of the selected row among those that fit
    this.asked = 0;
    this.box = get("rows");
    this.sheet = get("sheet");
    this.box.addEventListener("scroll", () => requestAnimationFrame(() => this.show()));
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.sheet.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.open(Number(row.dataset.place));
    });
    for (const id of ["benchmark", "state", "model", "against"]) get(id).addEventListener("change", () => this.filter());
    get("search").addEventListener("input", () => this.filter());
    new ResizeObserver(() => this.show()).observe(this.box);
  }

  async filter() {
    const number = ++this.asked;
    const chosen = ["model", "against"].map((id) => get(id).value).filter((value) => value !== "");
    const asked = {
      benchmark: get("benchmark").value === "" ? null : Number(get("benchmark").value),
      models: chosen.length ? new Set(chosen.map(Number)) : null,
      state: get("state").value,
      text: get("search").value,
    };
    get("count").textContent = "…";
    this.at = 0;
    this.box.scrollTop = 0;
    let told = performance.now();
    const rows = await this.samples.find(asked, (found) => {
      if (number === this.asked && performance.now() - told > 200) {
        told = performance.now();
        this.fill(found.slice(), "so far …");
      }
      return number === this.asked;
    });
    if (rows !== null && number === this.asked) this.fill(rows, `of ${this.samples.length.toLocaleString("en")}`);
  }

  fill(rows, remark) {
    this.rows = rows;
    this.sheet.style.height = `${rows.length * HEIGHT}px`;
    this.box.setAttribute("aria-rowcount", rows.length);
    get("count").textContent = `${rows.length.toLocaleString("en")} ${remark}`;
    this.show();
  }

  show() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - 5);
    const last = Math.min(this.rows.length, first + Math.ceil(this.box.clientHeight / HEIGHT) + 10);
    const made = [];
    for (let place = first; place < last; place++) made.push(this.line(place));
    this.sheet.replaceChildren(...made);
  }

  line(place) {
    const { index } = this.samples;
    const at = this.rows[place];
    const state = STATES[index.state[at]];
    const line = element("div", "", { role: "row", class: `row ${state.replaceAll(" ", "-")}`, id: `row-${place}` });
    line.dataset.place = place;
    line.style.top = `${place * HEIGHT}px`;
    line.setAttribute("aria-rowindex", place + 1);
    line.setAttribute("aria-selected", place === this.at);
    const value = index.value[at];
    const cells = [index.benchmarks[index.benchmark[at]], index.models[index.model[at]], `${index.tasks[index.task[at]]} ${index.doc[at]}`, value === null ? state : `${state} (${Number(value.toFixed(4))})`, "", ""];
    line.append(...cells.map((text) => element("span", text, { role: "gridcell", title: text })));
    this.samples.row(at).then((row) => {
      line.children[4].textContent = row.target.slice(0, 200);
      line.children[5].textContent = snippet(row);
    });
    return line;
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (step !== undefined) {
      this.at = Math.max(0, Math.min(this.rows.length - 1, this.at + step));
      const top = this.at * HEIGHT;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      const bottom = top + HEIGHT - this.box.clientHeight;
      if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
      this.show();
      this.box.setAttribute("aria-activedescendant", `row-${this.at}`);
    } else if (event.key === "Enter" && this.rows.length) this.open(this.at);
    else return;
    event.preventDefault();
  }

  async open(place) {
    this.at = place;
    this.show();
    const at = this.rows[place];
    const row = await this.samples.row(at);
    const parts = [element("h3", `${row.benchmark}, ${row.task} doc ${row.doc}, ${row.model}: ${row.state}`)];
    parts.push(fold("Prompt", row.prompt));
    if (row.choices.length) parts.push(choices(row));
    parts.push(field("Target", row.target));
    row.reasoning.forEach((text, which) => text && parts.push(fold(`Reasoning${nth(row.reasoning, which)}`, text)));
    row.texts.forEach((text, which) => parts.push(fold(`Output${nth(row.texts, which)}`, text, row.texts.length < 4)));
    if (row.error) parts.push(field("Error", row.error));
    for (const [name, text] of Object.entries(row.filtered)) parts.push(field(`After filter ${name}`, text));
    parts.push(field("Metrics", Object.entries(row.metrics).map(([name, value]) => `${name} ${value}`).join("   ")));
    parts.push(field("Tokens", `${row.prompt_tokens} of the prompt, ${row.completion_tokens} answered${row.truncated ? ", cut at the limit" : ""}`));
    const others = this.samples.siblings(at).filter((each) => each !== at);
    if (others.length) {
      const list = element("table", "", { class: "others" });
      for (const each of others) {
        const other = await this.samples.row(each);
        const line = element("tr");
        line.append(element("td", other.model), element("td", other.state), element("td", snippet(other)));
        list.append(line);
      }
      parts.push(element("h4", "Other models on this doc"), list);
    }
    get("detail").replaceChildren(...parts);
  }
}

const nth = (list, which) => (list.length > 1 ? ` ${which + 1} of ${list.length}` : "");

function fold(title, text, open = false) {
  const made = element("details");
  made.open = open;
  made.append(element("summary", `${title} (${text.length.toLocaleString("en")} characters)`), element("pre", text));
  return made;
}

function field(title, text) {
  const made = element("div", "", { class: "field" });
  made.append(element("b", title), element("pre", text));
  return made;
}

function choices(row) {
  const list = element("table", "", { class: "others" });
  row.choices.forEach((choice, which) => {
    const line = element("tr");
    const number = row.logprobs[which];
    line.append(element("td", choice), element("td", number === undefined ? "" : number.toFixed(3)), element("td", choice === row.answer ? "most likely" : ""));
    list.append(line);
  });
  return list;
}

/* Pages are unpacked ahead while nothing else is to be done, so that the first search need not wait */
function unpackAhead(samples, number = 0) {
  if (number * samples.index.rows_in_page >= samples.length) return;
  const next = () => samples.page(number).then(() => unpackAhead(samples, number + 1));
  if ("requestIdleCallback" in window) requestIdleCallback(next); else setTimeout(next, 20);
}

async function start() {
  get("theme").addEventListener("click", toggleTheme);
  dark.addEventListener("change", paint);
  addEventListener("beforeprint", printing);
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && document.activeElement === get("search")) {
      get("search").value = "";
      get("search").dispatchEvent(new Event("input"));
    } else if (typing) return;
    else if (event.key === "/") get("search").focus();
    else if (event.key === "t") toggleTheme();
    else return;
    event.preventDefault();
  });
  await showSamples().finally(watchCharts);
}

async function showSamples() {
  const index = await unpack(get("index").textContent);
  const samples = new Samples(index, (number) => get(`page-${number}`).textContent);
  for (const [id, names] of [["benchmark", index.benchmarks], ["model", index.models], ["against", index.models]])
    get(id).append(...names.map((name, which) => element("option", name, { value: which })));
  const table = new Table(samples);
  await table.filter();
  unpackAhead(samples);
}

start();
