"""The report's own script on what is embedded in the file, run by node: filters, search, flipped docs."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core.report.html import PAGE, read_report, report_html
from core.results import open_store
from tests.core.report.test_html import Page, fill

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node here to run the report's script")
SCRIPT = """
const { Samples, unpack, snippet } = require(%s);
const { index, pages } = JSON.parse(require("fs").readFileSync(0, "utf8"));
(async () => {
  const samples = new Samples(await unpack(index), (number) => pages[number]);
  console.log(JSON.stringify(await (async () => { %s })()));
})();
"""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = open_store(str(tmp_path_factory.mktemp("report")))
    fill(store)
    page = Page(report_html(read_report(store, "nightly")))
    return json.dumps({"index": page.scripts["index"], "pages": [page.scripts["page-0"]]})


def run(embedded: str, body: str) -> Any:
    script = SCRIPT % (json.dumps(str(PAGE / "samples.js")), body)
    done = subprocess.run([str(NODE), "-e", script], input=embedded, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ("{}", list(range(40))),
        ("{state: 'partly right'}", [5]),
        ("{state: 'no answer'}", [6, 7]),
        ("{state: 'right', models: new Set([0])}", [0, 2, 4]),
        ("{benchmark: 1}", []),
        ("{state: 'flipped'}", [2, 3, *range(8, 40)]),
        ("{state: 'flipped', models: new Set([1])}", []),
        ("{text: 'TINY ponders'}", list(range(1, 40, 2))),
        ("{text: '\"much is 1?\"'}", [2, 3]),
        ("{text: '\"much is 1?\" large'}", [2]),
        ("{text: 'it died', models: new Set([1])}", [7]),
        ("{text: 'much 7? tiny'}", [15, 35]),
        ("{text: 'tiny large'}", []),
        ("{text: '.*'}", []),
    ],
)
def test_filters_and_search_find_rows(embedded: str, asked: str, rows: list[int]) -> None:
    assert run(embedded, f"return samples.find({asked})") == rows


def test_a_search_that_nobody_waits_for_any_more_ends(embedded: str) -> None:
    assert run(embedded, "return samples.find({text: 'tiny'}, () => false)") is None


def test_a_row_has_its_texts_and_the_other_models_answers(embedded: str) -> None:
    row = run(embedded, "return {...await samples.row(3), siblings: samples.siblings(3)}")
    assert (row["model"], row["benchmark"], row["doc"], row["state"]) == ("tiny", "gsm8k", 1, "wrong")
    assert row["reasoning"] == ["tiny ponders"]
    assert row["target"] == "1"
    assert row["siblings"] == [2, 3]
    assert row["answer"] == row["texts"][0]
    assert row["answer"].startswith("tiny: ")
    assert run(embedded, "return snippet(await samples.row(6))") == "it died"


def test_the_pages_script_is_whole(tmp_path: Path) -> None:
    done = subprocess.run([str(NODE), "--check", str(PAGE / "page.js")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
