"""Tables for people, in terminals of any width."""

import io
from html.parser import HTMLParser

import pandas as pd
import pytest
from rich.console import Console
from rich.text import Text

from core.tables import Column, Row, Table, facts_table, fenced, for_spreadsheets, markdown_text, numbers, texts

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


HOSTILE = "\x1b]52;c;AA\x07[red]\u202e\nx\ty"


def test_nothing_in_a_table_steers_a_terminal() -> None:
    table = Table(HOSTILE, texts("name"), [Row((HOSTILE,))], [HOSTILE])
    for text in (printed(table, 80), table.plain(), table.markdown(), table.latex()):
        assert text.replace("\n", "").isprintable()
        assert "[red]" in text
    assert r"\x1b]52;c;AA\x07[red]\u202e" in printed(table, 80)
    assert table.plain().splitlines()[1:] == [r"\x1b]52;c;AA\x07[red]\u202e x y"]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("<!-- x", "&lt;!-- x"),
        ("<javascript:x>", "&lt;javascript:x>"),
        ("&lt;img&gt; & b", "&amp;lt;img&amp;gt; & b"),
        ("[x](javascript:alert(1))", r"[x\](javascript:alert(1))"),
        ("[x][y] [z]: u", r"[x\][y\] [z\]: u"),
        ("a|b\\|c", r"a\|b\\\|c"),
        ("__init__ acc_norm *a* `b` ~c~", r"\_\_init\_\_ acc_norm \*a\* \`b\` &#126;c&#126;"),
        ("# x", r"\# x"),
        ("> x", r"\> x"),
        ("- x", r"\- x"),
        ("12. x", r"12\. x"),
        ("---", r"\---"),
        ("a\n\n# b", "a # b"),
        ("-0.5 <0.0001 [0.1, 0.2] -", "-0.5 <0.0001 [0.1, 0.2] -"),
    ],
)
def test_no_text_is_markdown(text: str, escaped: str) -> None:
    assert markdown_text(text) == escaped


class Seen(HTMLParser):
    """Tags and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markdown_of_a_hostile_text_is_that_text_to_its_renderer() -> None:
    from markdown_it import MarkdownIt

    given = "<img src=x> [x](javascript:alert(1)) ![y](z) | a_b _c_ **d** `e` <b>f</b> <http://g> &lt; \\ \\| \\<i> ~~h~~ # i"
    html = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .render(Table("", [Column("x")], [Row((given,))]).markdown())
    )
    seen = Seen()
    seen.feed(html)
    assert set(seen.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert given in seen.text


def test_no_line_ends_a_code_block() -> None:
    assert fenced("a\n```\n````\x1b") == "`````\na\n```\n````\\x1b\n`````"
    assert fenced("a") == "```\na\n```"


def test_a_spreadsheet_runs_no_text_and_reads_every_number() -> None:
    formulas = ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1", "＝1", "- item", "\r=1", "\n=1"]
    fine = ["-5", "+3.5", "-1e-5", "-1,234", "-50%", "-", "4 = 4", "a\nb", "", "ä"]
    frame = pd.DataFrame(
        {
            "text": [*formulas, *fine],
            "number": [-0.5] * 20,
            "mixed": pd.Series([-1, None, "=1", -2.5] * 5, dtype=object),
            "known": pd.Categorical(["=a", "b"] * 10),
        }
    )
    read = pd.read_csv(io.StringIO(for_spreadsheets(frame).to_csv(index=False)), keep_default_na=False)
    assert all(text.startswith("'") for text in read["text"][:10])
    assert list(read["text"][10:]) == fine
    assert list(read["number"]) == [-0.5] * 20
    assert list(read["mixed"][:4]) == ["-1", "", "'=1", "-2.5"]
    assert list(read["known"][:2]) == ["'=a", "b"]
    assert for_spreadsheets(frame)["text"][4] == "'\t=1"
