"""Commands that the documentation tells people to type, and whether each is one: its program, subcommand and options exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
UNITS = ROOT / "deployments" / "systemd"
SEPARATORS = {";", "&&", "||", "|", "&"}
ASSIGNMENT = re.compile(r"\w+ = ")  # a line of Python among commands
INLINE = re.compile(r"`((?:steelyard|make|prefect|ray|python -m) [^`\n]+)`")


def lines_of(page: Path) -> list[str]:
    """Return the lines of a page's code blocks that are commands, comments and all.

    Raises `ValueError` for a line beside them that starts with a program which nobody here can judge.
    """
    found: list[str] = []
    for indented, block in groupby(page.read_text(encoding="utf-8").splitlines(), lambda line: line.startswith("    ")):
        lines = [line[4:] for line in block] if indented else []
        commands = [line for line in lines if _program(line) in JUDGES]
        others = [line for line in lines if line not in commands and not ASSIGNMENT.match(line)]
        if commands and others:
            raise ValueError(f"{page.name}: among commands, {others[0]!r} starts with no program that is known here")
        found += commands
    return found


def inline_of(page: Path) -> list[str]:
    """Return commands inside a page's sentences; they may leave arguments out."""
    return INLINE.findall(page.read_text(encoding="utf-8"))


def commands_of(line: str) -> Iterator[list[str]]:
    """Give the words of each command of a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    words: list[str] = []
    into_file = False
    for word in [*lexer, ";"]:
        if word in SEPARATORS:
            words = words[1:] if words[:1] == ["do"] else words
            if words and words[0] not in ("for", "done"):
                yield words
            words = []
        elif word == ">" or into_file:
            into_file = not into_file
        else:
            words.append(word)


def judge(words: Sequence[str], *, whole: bool = True) -> None:
    """Raise where a command is none, or names a file that the repository does not have. ``whole``: no argument may be missing."""
    JUDGES[_name(words[0])](list(words[1:]), whole)
    for word in words[1:]:
        folder, _, rest = word.partition("/")
        unit = word if word.endswith(".service") and not rest else None
        if unit and not (UNITS / re.sub(r"@\w+", "@", unit)).is_file():
            raise FileNotFoundError(word)
        made = folder.startswith(".")  # by the demo, where that was run
        if folder and rest and not made and (ROOT / folder).is_dir() and not list(ROOT.glob(word)):
            raise FileNotFoundError(word)


def _program(line: str) -> str:
    try:
        return _name(next(commands_of(line), [""])[0])
    except ValueError:  # no shell: a quote that does not end
        return ""


def _name(word: str) -> str:
    return re.sub(r"^python[\d.]+$", "python", word.rsplit("/", 1)[-1])


def _steelyard(words: list[str], whole: bool) -> None:
    import typer

    from deployments.cli import app

    _click(typer.main.get_command(app), words, whole)


def _ray(words: list[str], whole: bool) -> None:
    with warnings.catch_warnings(action="ignore"):  # Ray's own, of what it imports
        from ray.scripts.scripts import cli

    _click(cli, words, whole)


def _click(command: Any, words: list[str], whole: bool) -> None:
    while hasattr(command, "commands") and words:
        if words[0] not in command.commands:
            raise ValueError(f"{command.name} has no command {words[0]!r}")
        command, words = command.commands[words[0]], words[1:]
    if whole:
        command.make_context(command.name, words)  # parses, and runs nothing
        return
    options = {option for parameter in command.params for option in parameter.opts}
    if unknown := {word for word in words if word.startswith("-")} - options:
        raise ValueError(f"{command.name} has no option {unknown}")


def _prefect(words: list[str], whole: bool) -> None:
    from prefect.cli._app import _app

    strict: dict[str, Any] = {"exit_on_error": False, "print_error": False}
    _, bound, _ = _app.meta.parse_args(words, **strict)
    if whole:
        _app.parse_args(list(bound.args), **strict)
    elif _app[words[0]] is None:
        raise ValueError(f"prefect has no command {words[0]!r}")


def _make(words: list[str], whole: bool) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        if "=" not in target and not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
            raise ValueError(f"make has no target {target!r}")


def _python(words: list[str], whole: bool) -> None:
    if words[:2] == ["-m", "venv"]:
        return
    if words[0] != "-m":
        raise ValueError(f"python {words[0]}: a module is wanted")
    found = importlib.util.find_spec(words[1])
    if found is None or found.origin is None:
        raise ModuleNotFoundError(words[1])
    program = Path(found.origin)
    program = program.with_name("__main__.py") if program.name == "__init__.py" else program
    if unknown := [w for w in words[2:] if w.startswith("-") and f'"{w}"' not in program.read_text(encoding="utf-8")]:
        raise ValueError(f"python -m {words[1]} has no option {unknown}")


def _files_only(words: list[str], whole: bool) -> None:
    """A program of others that is not here, or must not be run: only the files it is given are looked at."""


OTHERS = ("$EDITOR", "export", "install", "journalctl", "kubectl", "pip", "sbatch", "sudo", "sudoedit")
JUDGES: dict[str, Callable[[list[str], bool], None]] = {
    "steelyard": _steelyard,
    "prefect": _prefect,
    "ray": _ray,
    "make": _make,
    "python": _python,
    **dict.fromkeys(OTHERS, _files_only),
}
