"use strict";
/* Samples as they are embedded: an index of small columns, and pages of texts that are unpacked when they are looked at.
   Nothing here knows the document, so that it runs under node as well. */

const STATES = ["wrong", "right", "partly right", "not scored", "no answer"];
const [WRONG, RIGHT] = [0, 1];

function decoded(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const binary = atob(base64.trim());
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/* base64 of gzipped JSON → value. By way of a Response: a Blob's bytes would go to the browser's process and back, twice the time */
async function unpack(base64) {
  const stream = new Response(decoded(base64)).body.pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/* What a person types → tests of one text each, whatever its case: words, and "quoted ones" together */
function matchers(typed) {
  const words = Array.from(typed.matchAll(/"([^"]+)"?|(\S+)/g), (found) => found[1] ?? found[2]);
  return words.map((word) => new RegExp(word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i"));
}

/* Those of the tests that none of the texts passes */
const failing = (tests, texts) => tests.filter((test) => !texts.some((text) => test.test(text)));

class Samples {
  /* packed: page number → its base64 */
  constructor(index, packed) {
    this.index = index;
    this.length = index.doc.length;
    this.packed = packed;
    this.pages = new Map();
  }

  page(number) {
    if (!this.pages.has(number)) this.pages.set(number, unpack(this.packed(number)));
    return this.pages.get(number);
  }

  /* Everything that is known of one row */
  async row(at) {
    const { index } = this;
    const page = await this.page(Math.floor(at / index.rows_in_page));
    const place = at % index.rows_in_page;
    const [doc, row] = [page.docs[page.doc[place]], page.rows[place]];
    return {
      model: index.models[index.model[at]],
      benchmark: index.benchmarks[index.benchmark[at]],
      task: index.tasks[index.task[at]],
      doc: index.doc[at],
      state: STATES[index.state[at]],
      value: index.value[at],
      ...doc,
      ...row,
      prompt: page.opening + doc.prompt, // all of the page's begin alike
      answer: row.answer ?? row.texts[0], // stands there once where they are the same
    };
  }

  /* Rows about the doc of one row, in the order of models */
  siblings(at) {
    const { key } = this.index;
    const found = [];
    let first = at;
    while (first > 0 && key[first - 1] === key[at]) first--;
    for (let each = first; each < this.length && key[each] === key[at]; each++) found.push(each);
    return found;
  }

  /* Docs that some of the models get right and others wrong */
  flipped(models) {
    const { key, model, state } = this.index;
    const seen = new Map();
    for (let at = 0; at < this.length; at++) {
      if (models && !models.has(model[at])) continue;
      if (state[at] === RIGHT || state[at] === WRONG) seen.set(key[at], (seen.get(key[at]) ?? 0) | (1 << state[at]));
    }
    return seen;
  }

  /* Rows that fit: benchmark and models (a Set) by number or null, state by name or "flipped", text as typed.
     Between pages it tells alive() the rows found so far, and gives null where that says that somebody has asked anew. */
  async find({ benchmark = null, models = null, state = "", text = "" }, alive = () => true) {
    const { index } = this;
    const wanted = STATES.indexOf(state);
    const flipped = state === "flipped" ? this.flipped(models) : null;
    let rows = [];
    for (let at = 0; at < this.length; at++) {
      if (benchmark !== null && index.benchmark[at] !== benchmark) continue;
      if (models && !models.has(index.model[at])) continue;
      if (wanted >= 0 && index.state[at] !== wanted) continue;
      if (flipped && flipped.get(index.key[at]) !== 3) continue;
      rows.push(at);
    }
    if (!text.trim()) return rows;
    const tests = matchers(text);
    const fitting = [];
    let [loaded, page, left, end, known] = [-1, null, null, "", null];
    for (const at of rows) {
      const number = Math.floor(at / index.rows_in_page);
      if (number !== loaded) {
        page = await this.page(number);
        loaded = number;
        left = failing(tests, [page.opening]);
        end = page.opening.slice(-text.length); // what is typed may stand across the end of the opening
        known = new Map(); // doc → tests that its texts fail: many models have the same doc
        if (!alive(fitting)) return null;
      }
      const place = at % index.rows_in_page;
      const [doc, row] = [page.docs[page.doc[place]], page.rows[place]];
      if (!known.has(doc)) known.set(doc, failing(left, [end + doc.prompt, doc.target, ...doc.choices]));
      const texts = [String(index.doc[at]), ...row.texts, ...row.reasoning, row.error ?? ""];
      if (!failing(known.get(doc), texts).length) fitting.push(at);
    }
    return fitting;
  }
}

/* Long lines in one row of a table: what of them is shown */
function snippet(row) {
  return (row.error ?? row.answer).replace(/\s+/g, " ").slice(0, 300);
}

if (typeof module !== "undefined") module.exports = { Samples, unpack, snippet, STATES };
