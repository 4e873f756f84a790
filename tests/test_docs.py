"""The documentation: its commands exist, its messages are those of the code, its links and its nav lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs_commands import PAGES, ROOT, commands_of, inline_of, judge, lines_of

DOCS = sorted(ROOT.glob("docs/*.md"))
ROOMS = ("core", "engines", "tasks", "flows", "deployments")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    for line in lines_of(page):
        for words in commands_of(line):
            judge(words)
    for line in inline_of(page):
        for words in commands_of(line):
            judge(words, whole=False)


def test_commands_are_found_where_people_type_them() -> None:
    assert {page.name for page in PAGES if lines_of(page)} >= {
        "README.md",
        "index.md",
        "cluster.md",
        "troubleshooting.md",
    }
    assert [words[1] for line in lines_of(ROOT / "docs/index.md") for words in commands_of(line)][2:] == [
        *("models", "plan", "run", "status", "results", "report", "compare"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("steelyard rn nightly.yaml", "no command 'rn'"),
        ("steelyard run", "Missing argument"),
        ("steelyard results nightly.yaml --by-sise", "No such option: --by-sise"),
        ("steelyard deploy && steelyard datasets feth nightly.yaml", "no command 'feth'"),
        ("for pool in gpu; do prefect work-pool create $pool --tpe process; done", "Unknown option"),
        ("prefect deploymnt run campaign/nightly", "Unknown command"),
        ("ray start --haed", "No such option"),
        ("make dcos", "no target 'dcos'"),
        ("python -m perf.chaso", "perf.chaso"),
        ("python -m perf.chaos --sed 1", "no option"),
        ("kubectl apply -f deployments/kubernetes/rabc.yaml", "rabc"),
        ("sudo systemctl enable steelyard-server.service", "steelyard-server"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, said: str) -> None:
    *before, last = commands_of(line)
    for words in before:
        judge(words)
    with pytest.raises(Exception) as refused:
        judge(last)
    assert said in getattr(refused.value, "format_message", refused.value.__str__)()


def test_a_program_that_nobody_judges_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text:\n\n    steelyard deploy\n    curl localhost   # unknown\n")
    with pytest.raises(ValueError, match="curl localhost"):
        lines_of(page)


def test_troubleshooting_quotes_what_the_code_says() -> None:
    said = [text for room in ROOMS for path in (ROOT / room).rglob("*.py") for text in texts_of(path)]
    rows = re.findall(r"^\| (`.+?) \| ", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row) if " " in message]
    assert len(messages) > 30
    missing = [message for message in messages if not any(is_of(message, text) for text in said)]
    assert missing == []
    assert not any(is_of("model directory … does exist", text) for text in said)


def texts_of(path: Path) -> Iterator[str]:
    """Give the strings of a file, with `…` for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_of(message: str, text: str) -> bool:
    """Say whether ``message`` is ``text`` or a part of it; one that ends with `…` goes on in whatever way."""
    return message.removesuffix("…").strip() in text


def navigation() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(entry)


def test_the_nav_names_every_page_once_and_nothing_else() -> None:
    named = list(leaves(navigation()["nav"]))
    assert sorted(named) == [page.name for page in DOCS]
    assert named[0] == "index.md"


def test_no_page_asks_anything_of_the_network() -> None:
    assert navigation()["theme"]["font"] is False
    assert not {"extra_css", "extra_javascript"} & set(navigation())


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_of_a_page_stay_within_the_site(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).resolve().parent == ROOT / "docs", target


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason="zensical, which builds the site, is not installed"
)
def test_the_site_builds_and_a_dead_link_or_anchor_fails(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    done = built(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert set(pages) == {*(page.stem for page in DOCS), "404"}
    fetched = r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//"
    assert [name for name, text in pages.items() if re.search(fetched, text)] == []
    for link in ("nowhere.md", "faults.md#nowhere"):
        (tmp_path / "docs" / "concepts.md").write_text(f"# Concepts\n\n[there]({link})\n")
        assert built(tmp_path).returncode != 0, link
