"""The report of a store with very many samples: seconds to make it, its size, and how long its own script takes to filter.

``python -m perf.report`` fills a local store with made-up samples (40 models on one benchmark) and makes the report as
``steelyard report`` does. Its script then runs under node, where that is installed, on what is embedded in the file. Where Chromium
is installed it opens the file, headless and without a GPU: those figures end when what was asked for has been painted.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from core.report.html import PAGE, read_report, report_html
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring
from perf.browser import chromium, tab
from perf.measure import Ratio, load, report

MODELS = 40
SEARCHES = {
    "the index": "samples = new Samples(await unpack(index), (number) => pages[number])",
    "right answers of one model": "await samples.find({models: new Set([3]), state: 'right'})",
    "docs that flipped": "await samples.find({state: 'flipped'})",
    "a first search in all texts, pages still packed": "await samples.find({text: 'marvel'})",
    "the next search": "await samples.find({text: 'answer zebra'})",
}
ACTIONS = {
    "right answers of one model": {"model": "3", "state": "right"},
    "docs that flipped": {"model": "", "state": "flipped"},
    "a first search in all texts": {"state": "", "search": "marvel"},
    "the next search": {"search": "answer zebra"},
    "everything again": {"search": ""},
}
PAINTED = """
(async () => {{
  const frame = () => new Promise(requestAnimationFrame);
  const begun = performance.now();
  for (const [id, value] of Object.entries({values})) {{
    get(id).value = value;
    get(id).dispatchEvent(new Event(id === "search" ? "input" : "change"));
  }}
  while (!/of [0-9,]+$/.test(get("count").textContent)) await frame();
  await frame();
  await frame();
  return performance.now() - begun;
}})()
"""
SHOWN = """
new MutationObserver((_, watcher) => {
  if (!/of [0-9,]+$/.test(document.getElementById("count")?.textContent)) return;
  window.shown = performance.now();
  watcher.disconnect();
}).observe(document, {childList: true, subtree: true});
"""
SCRIPT = """
const {{ Samples, unpack }} = require({path});
const {{ index, pages }} = JSON.parse(require("fs").readFileSync(0, "utf8"));
let samples;
(async () => {{
  const took = {{}};
  let begun;
  {steps}
  console.log(JSON.stringify(took));
}})();
"""


def fill(store: Store, samples: int) -> None:
    """Commit made-up cells: prompts as long as GSM8K's with few-shot examples, answers as long as reasoning in short."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(20_000)]

    def text(count: int) -> str:
        return " ".join(dice.choices(words, k=count))

    shots = text(200)
    docs = [(f"{shots}\n\nQuestion: {text(45)}\nAnswer:", text(3)) for _ in range(samples // MODELS)]
    for number in range(MODELS):
        rows = tuple(
            Sample(
                task="perf",
                doc_id=place,
                doc="{}",
                prompt=prompt,
                choices=(),
                target=target,
                texts=(text(60),),
                value=float(dice.random() < number / MODELS),
                prompt_tokens=400,
                completion_tokens=80,
            )
            for place, (prompt, target) in enumerate(docs)
        )
        mean = sum(row.value or 0.0 for row in rows) / len(rows)
        score = Score("perf", "exact_match", "none", mean, 0.01, len(rows), higher_is_better=True, primary=True)
        cell = Cell(f"{number:064x}", f"model-{number:02}", "perf", {"checkpoint": str(number)})
        store.commit(cell, Scoring(rows, (score,), score), {"seconds": 1.0})


def searched(page: str) -> dict[str, float]:
    """Return milliseconds of `SEARCHES` under node; nothing where there is none."""
    node = shutil.which("node")
    if node is None:
        return {}
    steps = "\n".join(
        f"begun = performance.now(); {step}; took[{json.dumps(name)}] = performance.now() - begun;"
        for name, step in SEARCHES.items()
    )
    script = SCRIPT.format(path=json.dumps(str(PAGE / "samples.js")), steps=steps)
    done = subprocess.run(
        [node, "-e", script], input=json.dumps(embedded(page)), stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def painted(page: str) -> dict[str, float]:
    """Return milliseconds in Chromium until the first paint, chart and table of samples, and the end of each of `ACTIONS`.

    Nothing where there is no Chromium.
    """
    if chromium() is None:
        return {}
    with tempfile.TemporaryDirectory() as folder, tab() as opened:
        file = Path(folder, "report.html")
        file.write_text(page, encoding="utf-8")
        opened.send("Page.addScriptToEvaluateOnNewDocument", source=SHOWN)
        opened.open(file.as_uri())
        opened.until("document.querySelector('.main-svg')", seconds=50.0)
        found = {"the first chart is there": float(opened.run("performance.now()"))}
        opened.until("window.shown", seconds=50.0)
        found["the samples are there"] = opened.run("window.shown")
        first = opened.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        found |= {name: opened.run(PAINTED.format(values=json.dumps(values))) for name, values in ACTIONS.items()}
        if opened.errors:
            raise RuntimeError(f"the report's script failed: {opened.errors[0]}")
    return {"first paint": first, **found}


def embedded(page: str) -> dict[str, Any]:
    """Return the packed index and pages of a report."""
    opening = '<script type="text/plain" id="'
    parts = dict(part.split("</script>", 1)[0].split('">', 1) for part in page.split(opening)[1:])
    return {"index": parts.pop("index"), "pages": list(parts.values())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.report", description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        fill(store, asked.samples)
        start = time.monotonic()
        found = read_report(store)
        read = time.monotonic() - start
        page = report_html(found)
        made = time.monotonic() - start - read
    what = f"{len(found.samples):,} samples"
    rows = [
        Ratio(f"{what}: read", "s", read),
        Ratio(f"{what}: page made", "s", made),
        Ratio(f"{what}: the file", "MB", len(page.encode()) / 1e6, target="< 60"),
        *(
            Ratio(f"{what}, under node: {name}", "ms", value, target="< 1,000")
            for name, value in searched(page).items()
        ),
        *(Ratio(f"{what}, Chromium: {name}", "ms", value) for name, value in painted(page).items()),
    ]
    report("Report", rows, begun, before)


if __name__ == "__main__":
    main()
