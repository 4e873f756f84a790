"""Modules beside a YAML's own: what the check says of them is what the loader does."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import FileFinder, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import Benchmark, check_benchmark, load_benchmark
from core.campaign import BenchmarkSpec
from core.catalogue.imports import helpers
from core.errors import UserError
from core.request import Loglikelihood

TASK = """\
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: !function mine.text
doc_to_choice: ['yes', 'no']
doc_to_target: gold
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
SHOUT = "def shout(text):\n    return text.upper()\n"
CALLS = "\n\ndef text(doc):\n    return shout(doc['q'])\n"


def write(folder: Path, files: dict[str, str], more: str = "") -> BenchmarkSpec:
    folder.mkdir(exist_ok=True)
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"q": "Is 0 even?", "gold": 0}) + "\n")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own.yaml").write_text(TASK.format(rows=rows) + more)
    return BenchmarkSpec(name=str(folder / "own.yaml"))


def loaded(spec: BenchmarkSpec) -> Benchmark:
    check_benchmark(spec)
    return load_benchmark(spec, chat=None, seed=1)


def context(spec: BenchmarkSpec) -> str:
    request = next(iter(loaded(spec).requests()))
    assert isinstance(request, Loglikelihood)
    return request.context


@pytest.mark.parametrize(
    "files",
    [
        {"mine.py": f"from common import shout{CALLS}", "common.py": SHOUT},
        {"mine.py": f"import common as c\nshout = c.shout{CALLS}", "common.py": SHOUT},
        {"mine.py": f"from .common import shout{CALLS}", "common.py": SHOUT},
        {"mine.py": f"from . import common\nshout = common.shout{CALLS}", "common.py": SHOUT},
        {"mine.py": "def text(doc):\n    from common import shout\n    return shout(doc['q'])\n", "common.py": SHOUT},
        {"mine.py": f"from helpers.loud import shout{CALLS}", "helpers/__init__.py": "", "helpers/loud.py": SHOUT},
        {"mine.py": f"import helpers.loud\nshout = helpers.loud.shout{CALLS}", "helpers/loud.py": SHOUT},
        {
            "mine.py": f"from helpers import shout{CALLS}",
            "helpers/__init__.py": "from helpers.loud import shout\nfrom . import other\n",
            "helpers/loud.py": SHOUT,
            "helpers/other.py": "from .loud import shout\nimport common\n",
            "common.py": "import mine\n",
        },
        # names that are taken elsewhere: by Steelyard, by an installed package, by the module itself
        {"mine.py": f"from tasks import shout{CALLS}", "tasks.py": SHOUT},
        {"mine.py": f"from yaml import shout{CALLS}", "yaml.py": SHOUT},
        {"mine.py": f"from datasets import shout{CALLS}", "datasets.py": f"from datasets import Dataset\n{SHOUT}"},
    ],
)
def test_a_module_beside_the_yaml_s_is_found_by_check_and_loader(tmp_path: Path, files: dict[str, str]) -> None:
    assert context(write(tmp_path / "own", files)) == "IS 0 EVEN?"
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"mine.py": f"from xyz import shout{CALLS}"},
            "mine.py imports 'xyz', which is not installed: pip install xyz",
        ),
        (
            {"mine.py": f"from comon import shout{CALLS}", "common.py": SHOUT},
            "mine.py imports 'comon', which is neither beside it nor installed — did you mean 'common'?",
        ),
        (
            {"mine.py": f"from common import shuot{CALLS}", "common.py": SHOUT},
            "mine.py imports 'common.shuot', which is not there",
        ),
        ({"mine.py": f"from .comon import shout{CALLS}"}, "mine.py imports '.comon', which is not there"),
        ({"mine.py": f"from ..common import shout{CALLS}"}, "mine.py imports '..common', which is not there"),
        (
            {"mine.py": f"from helpers.low import shout{CALLS}", "helpers/__init__.py": ""},
            "mine.py imports 'helpers.low', which is not there",
        ),
        (
            {"mine.py": f"from common import shout{CALLS}", "common.py": f"import no_such_package\n{SHOUT}"},
            "common.py (by way of mine.py) imports 'no_such_package', which is not installed",
        ),
        (
            {"mine.py": "def text(doc):\n    return _text(doc)\n\n\ndef _text(doc):\n    import no_such_package\n"},
            "mine.py imports 'no_such_package', which is not installed",
        ),
        (
            {"mine.py": f"from common import shout{CALLS}", "common.py": "def shout(:\n"},
            "common.py line 1: invalid syntax",
        ),
    ],
)
def test_a_module_that_is_not_there_is_told_by_plan_with_its_line(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    spec = write(tmp_path / "own", files)
    with pytest.raises(UserError) as caught:
        check_benchmark(spec)
    assert f"own.yaml': line 6: doc_to_text = !function mine.text: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_finder_that_came_first_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"mine.py": f"from common import shout{CALLS}", "common.py": SHOUT}
    loaded(write(tmp_path / "before", own))
    monkeypatch.setattr(sys, "meta_path", [PathFinder, *sys.meta_path])
    assert context(write(tmp_path / "own", own)) == "IS 0 EVEN?"


def test_a_loader_that_another_library_gives_every_source_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect imports beartype, which does."""

    class Theirs(SourceFileLoader):
        pass

    monkeypatch.setattr(sys, "path_hooks", [FileFinder.path_hook((Theirs, [".py"])), *sys.path_hooks])
    own = {"mine.py": f"from common import shout{CALLS}", "common.py": SHOUT}
    assert context(write(tmp_path / "own", own)) == "IS 0 EVEN?"


def test_two_folders_with_helpers_of_one_name_keep_their_own(tmp_path: Path) -> None:
    own = {"mine.py": f"from common import shout{CALLS}", "common.py": SHOUT}
    low = own | {"common.py": SHOUT.replace("upper", "lower")}
    loud, quiet = write(tmp_path / "a", own), write(tmp_path / "b", low)
    assert [context(loud), context(quiet), context(loud)] == ["IS 0 EVEN?", "is 0 even?", "IS 0 EVEN?"]
    assert "common" not in sys.modules
    with pytest.raises(UserError, match="mine.py imports 'common', which is not installed"):
        check_benchmark(write(tmp_path / "c", {"mine.py": own["mine.py"]}))


def settings(spec: BenchmarkSpec) -> dict[str, Any]:
    return dict(loaded(spec).settings["tasks"]["own"])


def test_a_helper_that_was_edited_is_loaded_anew_and_changes_what_names_the_work(tmp_path: Path) -> None:
    scoring = "process_results: !function mine.results\n"
    files = {
        "mine.py": "import common\n\n\ndef text(doc):\n    return doc['q']\n\n\ndef results(doc, answers):\n"
        "    return {'acc': common.WORTH}\n",
        "common.py": "WORTH = 1\n",
    }
    first = settings(write(tmp_path / "own", files, scoring))
    assert settings(write(tmp_path / "own", files, scoring)) == first
    assert settings(write(tmp_path / "elsewhere", files, scoring)) == first
    second = settings(write(tmp_path / "own", files | {"common.py": "WORTH = 2\n"}, scoring))
    assert {name for name in first if first[name] != second[name]} == {"helpers"}
    alone = {"mine.py": "def text(doc):\n    return doc['q']\n", "unused.py": ""}
    assert "helpers" not in settings(write(tmp_path / "alone", alone))


def test_docs_that_were_mapped_by_a_function_that_was_edited_are_mapped_anew(tmp_path: Path) -> None:
    """In the harness a second process gets the first one's docs: datasets keeps them under the function's name."""
    more = "process_docs: !function mine.docs\n"
    text = "def loud(doc):\n    return {'q': doc['q'].upper()}\n\n\ndef docs(rows):\n    return rows.map(loud)\n\n\n"
    text += "def text(doc):\n    return doc['q']\n"
    program = (
        "import sys\nfrom core.benchmark.benchmark import load_benchmark\nfrom core.campaign import BenchmarkSpec\n"
        "loaded = load_benchmark(BenchmarkSpec(name=sys.argv[1]), chat=None, seed=1)\n"
        "print(next(iter(loaded.requests())).context)\n"
    )

    def said(source: str) -> str:
        spec = write(tmp_path / "own", {"mine.py": source}, more)
        done = subprocess.run([sys.executable, "-c", program, spec.name], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert said(text) == "IS 0 EVEN?"
    assert said(text.replace("upper", "lower")) == "is 0 even?"


def test_what_a_module_may_import_is_found_wherever_it_is_imported(tmp_path: Path) -> None:
    files = {
        "mine.py": "import json\ndef text(doc):\n    if doc:\n        from a import x\n"
        "    try:\n        import b\n    except ImportError:\n        pass\n",
        "a.py": "from pack import inner\n",
        "b.py": "",
        "pack/__init__.py": "",
        "pack/inner.py": "",
        "unused.py": "",
    }
    write(tmp_path / "own", files)
    names = [path.relative_to(tmp_path / "own").as_posix() for path in helpers(tmp_path / "own" / "mine.py")]
    assert sorted(names) == ["a.py", "b.py", "pack/__init__.py", "pack/inner.py"]
