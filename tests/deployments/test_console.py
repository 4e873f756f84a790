"""What the command line prints, over a store, checkpoints, task files and specs whose every text is hostile."""

from __future__ import annotations

import io
import json
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import typer.main
import yaml
from rich.text import Text

from core.errors import UserError
from core.monitor.progress import Progress
from core.monitor.timeline import Span
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring
from deployments import cli
from deployments.console import LogLines, Terminal, complain, say
from deployments.launch import CellBars
from tests.checkpoints import write_checkpoint
from tests.core.store_parts import METADATA, PLACEMENT

Steelyard = Callable[..., tuple[int, str, str]]

EVIL = "\x1b]52;c;cm0=\x07\x9b2J[/red][link=javascript:1]\u202e\u200b\x7f:bomb:\r"
FILE = EVIL.replace("/", "")
LINES = f"{EVIL}\nforged line\tx"
MODELS = (f"one {EVIL}", f"two {EVIL}")
BENCHMARK = f"sums {EVIL}"
LINES_SHOWN = r"\x1b]52;c;cm0=\x07\x9b2J[/red][link=javascript:1]\u202e\u200b\x7f:bomb:" + "\nforged line\tx"
CAMPAIGN = "nightly"


def sample(place: int, value: float) -> Sample:
    return Sample(
        task=BENCHMARK,
        doc_id=place,
        doc=json.dumps({"question": LINES}),
        prompt=f"=prompt {LINES}",
        choices=(),
        target=LINES,
        texts=(f"answer {LINES}",),
        reasoning=(LINES,),
        filtered={"none": LINES},
        values={"acc,none": value},
        value=value,
    )


def fill(store: Store) -> None:
    cells = {}
    for number, model in enumerate(MODELS):
        samples = tuple(sample(place, float(place % 2 == number)) for place in range(8))
        score = Score(BENCHMARK, f"acc{EVIL}", EVIL, 0.5, 0.1, 8, higher_is_better=True, primary=True)
        settings = {"checkpoint": EVIL, "revision": EVIL, "source": EVIL, "dtype": f"{number}{EVIL}", EVIL: number}
        placement = {**PLACEMENT, "reason": LINES}
        cell = Cell(f"{number}" * 64, model, BENCHMARK, settings)
        store.commit(cell, Scoring(samples, (score,), score), {**METADATA, "engine": EVIL, "placement": placement})
        cells[model] = cell.fingerprint
    for model, fingerprint in cells.items():
        store.write_model_run(CAMPAIGN, "r1", {"model": model, "cells": {BENCHMARK: fingerprint}})
    store.write_model_run(CAMPAIGN, "r1", {"model": f"three {EVIL}", "cells": {f"x{EVIL}": "e" * 64}})
    found = {"failures": {f"three {EVIL}": LINES}, "engines": {"text": LINES, "alike": False}, "seconds": 1.0}
    store.write_campaign({"campaign": CAMPAIGN, "run": "r1", **found})
    spans = [Span(MODELS[0], "benchmarks", EVIL, phase, EVIL, 0.0, 4.0) for phase in ("load", "generate")]
    store.write_timeline(CAMPAIGN, "r1", spans)
    for kind in ("samples", "leases"):
        (Path(store.uri) / kind).mkdir(exist_ok=True)
        (Path(store.uri) / kind / f"{FILE}.json").write_text("{}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``store``, and in it what else commands are given."""
    folder = tmp_path_factory.mktemp("world")
    fill(open_store(str(folder / "store")))
    write_checkpoint(folder / f"model {EVIL}")
    write_checkpoint(folder / "odd", architectures=[EVIL], model_type=EVIL)
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "own.yaml").write_text(yaml.safe_dump({"task": f"own{EVIL}", "dataset_path": EVIL, "tag": [EVIL]}))
    (tasks / f"broken{FILE}.yaml").write_text("task: [\n")
    harness = {
        "results": {FILE: {"alias": FILE, "acc,none": 1.0}},
        "configs": {FILE: {"metadata": {"version": 1.0}}},
        "n-samples": {FILE: {"original": 3, "effective": 3}},
        "config": {"model": FILE, "model_args": FILE},
        "model_name": FILE,
    }
    (folder / f"results_{FILE}.json").write_text(json.dumps(harness))
    spec = {
        "name": CAMPAIGN,
        "models": [{"model": str(folder / "odd"), "name": "m"}],
        "benchmarks": ["steelyard_facts"],
        "fleet": {"gpus": 2, "gpu_memory_gb": 8, "device": "cpu"},
        "results": str(folder / "store"),
    }
    (folder / "good.yaml").write_text(yaml.safe_dump(spec))
    (folder / "bad.yaml").write_text(yaml.safe_dump({**spec, "benchmarks": [EVIL], EVIL: LINES, "models": [{EVIL: 1}]}))
    (folder / f"no{FILE}.yaml").write_text("name: {")
    return folder


def commands(world: Path) -> Iterator[tuple[str, ...]]:
    store, good, bad = (str(world / name) for name in ("store", "good.yaml", "bad.yaml"))
    yield from (("results", store, "--format", format) for format in ("table", "markdown", "csv", "json", "latex"))
    yield from (("results", store, "--pairs", "--format", format) for format in ("table", "markdown", "csv", "json"))
    yield from (("results", store, "--history", "--format", format) for format in ("table", "markdown", "csv", "json"))
    yield from (("results", store, "--timeline", "--format", format) for format in ("table", "markdown", "csv", "json"))
    yield from (("results", store, "--campaign", CAMPAIGN), ("results", store, "--by-size"), ("results", good))
    yield from (
        ("results", store, "--model", EVIL),
        ("results", f"{store}{EVIL}"),
        ("results", store, "--format", EVIL),
    )
    yield from (("results", store, "--suite", EVIL), ("results", store, "--campaign", EVIL))
    pair = ("compare", *MODELS, "--store", store)
    yield from ((*pair, "--format", format) for format in ("table", "markdown", "csv", "json"))
    yield from ((*pair, "--flipped", "--format", format) for format in ("table", "markdown", "csv", "json"))
    yield from (
        (*pair, "--max-regression", "0"),
        (*pair, "--fail-below", f"{EVIL}=1"),
        ("compare", EVIL, EVIL, "--store", store),
    )
    yield from (("status", store), ("status", store, "--format", "csv"), ("status", store, "--format", "json"))
    yield from (("status", good), ("invalidate", store, "--model", MODELS[0]), ("invalidate", store, "--model", EVIL))
    yield from (("gc", store, "--days", "0"), ("upload", str(world / EVIL)), ("rerun", bad), ("rerun", bad, "--failed"))
    yield from (
        ("report", store, "-o", str(world / f"report{FILE}.html")),
        ("report", store, "-o", str(world / EVIL / "x")),
    )
    yield from (("export", str(world / f"out{EVIL}"), "--store", store), ("export", "--format", EVIL, "--store", store))
    yield ("import", "lm-eval", str(world / f"results_{FILE}.json"), "--store", str(world / "imported"))
    yield ("import", "lm-eval", str(world / f"none{EVIL}.json"), "--store", str(world / "imported"))
    yield from (("models", str(world / f"model {EVIL}")), ("models", str(world / "odd")), ("models", EVIL))
    yield from (("benchmarks", f"{world / 'tasks'}/", "--format", format) for format in ("table", "csv", "json"))
    yield from (("benchmarks", f"own{EVIL}"), ("benchmarks", "--tag", EVIL), ("benchmarks", f"{EVIL}/"))
    yield from (
        ("plan", good),
        ("plan", bad),
        ("simulate", good),
        ("simulate", good, "--fleet", str(world / f"no{FILE}.yaml")),
    )
    yield from (("run", bad), ("run", str(world / f"no{FILE}.yaml")), ("rescore", bad), ("deploy", bad))
    yield from (("datasets", "list", good), ("datasets", "fetch", bad), ("worker", EVIL), ("server", "--host", EVIL))
    yield from (("services", "list"), ("services", EVIL))


def steers(text: str) -> set[str]:
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n", "\t"}


def test_every_command_is_tried(world: Path) -> None:
    """A command that is not in the sweep below is told of here."""
    group = typer.main.get_command(cli.app)
    assert isinstance(group, typer.core.TyperGroup)
    assert {words[0] for words in commands(world)} == set(group.commands)


def test_no_command_lets_a_text_steer_the_terminal(
    steelyard: Steelyard, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(world)
    told = 0
    for words in commands(world):
        code, out, err = steelyard(*words)
        assert code in (0, 1, 2), words
        assert "Traceback" not in err, words
        assert not steers(out + err), words
        assert "csv" in words or not [line for line in (out + err).splitlines() if line.startswith("forged")], words
        told += "[/red][link=javascript:1]" in out + err and ":bomb:" in out + err
    assert told > 30


def test_json_has_every_text_exactly_and_csv_its_rows(steelyard: Steelyard, world: Path) -> None:
    compare = ("compare", *MODELS, "--store", str(world / "store"), "--flipped", "--format")
    rows = [json.loads(line) for line in steelyard(*compare, "json")[1].splitlines()]
    assert {row["model_a"] for row in rows} == {MODELS[0]}
    assert {row["prompt"] for row in rows} == {f"=prompt {LINES}"}
    frame = pd.read_csv(io.StringIO(steelyard(*compare, "csv")[1]))
    assert len(frame) == len(rows) == 8
    assert all(prompt.startswith("'=prompt ") for prompt in frame["prompt"])
    assert list(frame["value_a"]) == [row["value_a"] for row in rows]
    (line,) = steelyard("benchmarks", f"{world / 'tasks'}/", "--format", "json")[1].splitlines()[:1]
    assert EVIL in line.encode().decode("unicode_escape")


def test_a_terminal_has_richs_own_colours_and_nothing_else() -> None:
    out = Terminal(file=io.StringIO(), force_terminal=True, width=30, color_system="standard", legacy_windows=False)
    out.print(f"{EVIL} 5", soft_wrap=True)
    out.print(Text(EVIL, "red"))
    with CellBars(out) as bars:
        bars(Progress(f"m{EVIL}", EVIL, docs=10, done=4, resumed=0, tokens=80, seconds=2.0))
    LogLines(console=out, show_path=False).emit(logging.makeLogRecord({"msg": f"said {LINES}"}))
    assert isinstance(out.file, io.StringIO)
    plain = Text.from_ansi(out.file.getvalue().replace("\r", "")).plain
    assert r"\x1b]52;c;cm0=\x07\x9b2J[/red][link=javascript:1]\u202e\u200b\x7f:bomb:\r" in plain.replace("\n", "")
    assert "\x1b]" not in out.file.getvalue()
    assert not steers(out.file.getvalue()) - {"\x1b", "\r"}


def test_errors_and_what_is_said_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    complain(UserError(f"field: {LINES}"))
    say(EVIL)
    out, err = capsys.readouterr()
    assert err == "steelyard: field: " + LINES_SHOWN + "\n"
    assert not steers(out)
    assert str(UserError(EVIL)) == out.rstrip("\n")


def test_what_nobody_foresaw_is_printed_escaped_and_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASS", "hunter2hunter2")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["steelyard", "models", "x"])

    def fail() -> None:
        raise ValueError(f"hunter2hunter2 {LINES}")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ValueError, match="hunter2") as caught:
        cli.main()
    sys.excepthook(caught.type, caught.value, caught.tb)
    out, err = capsys.readouterr()
    assert (out, err.startswith("Traceback (most recent call last)")) == ("", True)
    assert err.endswith(f"ValueError: *** {LINES_SHOWN}\n")
