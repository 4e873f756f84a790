"""Tables for people, in terminals of any width."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from core.tables import Column, Row, Table, facts_table, numbers, texts

NAME = "Qwen3-30B-A3B-Instruct-2507"
WIDE = Table(
    "Scores of [red]x",
    (
        *texts("benchmark"),
        *texts("model", marked=True),
        *numbers("score"),
        Column("95% interval", wrap=False),
        *numbers("prompt tokens"),
        *texts("engine", spare=True),
        *numbers("tokens/s", spare=True),
    ),
    [
        Row(("mmlu", NAME, "0.7000", "[0.6714, 0.7276]", "1,000", "distributed", "1,234"), bold=True, group="mmlu"),
        Row(("a|b", "[red]_x", "0.3", Text("[∞, 1]", "red"), "1", "lightweight", "1"), group="a|b"),
    ],
    ["A note."],
)


def printed(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "left_out"), [(200, []), (70, ["tokens/s"]), (60, ["engine", "tokens/s"])])
def test_a_narrow_terminal_loses_spare_columns_with_a_word_and_cuts_nothing_else(
    width: int, left_out: list[str]
) -> None:
    text = printed(WIDE, width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("0.7000", "[0.6714, 0.7276]", "1,000", "[red]_x", "A note.", "Scores of [red]x"):
        assert part in text
    lines = text.splitlines()
    model = lines[2].index("model")
    assert NAME in "".join(line[model : model + len(NAME)].split(" ")[0] for line in lines)
    assert ("Left out at this width: " + ", ".join(left_out) in text) == bool(left_out)
    assert ("1,234" in text) == ("tokens/s" not in left_out)


def test_markdown_and_latex_are_escaped_and_mark_bold_rows() -> None:
    assert f"| mmlu | **{NAME}** | 0.7000 |" in WIDE.markdown()
    assert "| --- | --- | ---: | --- | ---: | --- | ---: |\n" in WIDE.markdown()
    assert "| a\\|b | [red]\\_x | 0.3 | [∞, 1] |" in WIDE.markdown()
    assert WIDE.markdown().endswith("|\n\nA note.\n")
    assert rf"mmlu & \textbf{{{NAME}}} & 0.7000 &" in WIDE.latex()
    assert r"a|b & [red]\_x & 0.3 & [$\infty$, 1] & 1 &" in WIDE.latex()
    assert r"\caption{Scores of [red]x. A note.}" in WIDE.latex()


def test_plain_columns_cut_nothing_off() -> None:
    table = Table("", texts("name", "why"), [Row(("x" * 60, "long")), Row(("y", ""))])
    assert table.plain().splitlines() == [f"{'NAME':44}  WHY", f"{'x' * 60}  long", "y"]


def test_facts_stand_without_headings() -> None:
    lines = printed(facts_table("[b]", {"model": NAME, "layers": "2"}), 80).splitlines()
    assert [lines[0].strip(), len(lines)] == ["[b]", 5]
    assert NAME in lines[2]
