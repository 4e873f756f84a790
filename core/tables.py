"""Tables for people: one value each, shown in a terminal, as markdown, as LaTeX or as plain columns; how numbers are written there.

CSV, JSON and Parquet carry the values behind a table in full, not its texts. Whatever a cell says, nothing obeys it: no
terminal, no browser that shows the markdown, no spreadsheet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.visible import one_line, visible

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

ALPHA = 0.05
LEAST = 10  # characters that a column of text keeps before spare columns go
WIDEST = 44  # of plain columns: a few very long names would push the others off the screen
LATEX = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "∞": r"$\infty$",
        "→": r"$\to$",
    }
)
# What would be formatting, a tag, an entity, a link's or footnote's middle, or another cell. Underscores inside words are none.
MARKDOWN = re.compile(
    r"[\\|*`]|~|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\](?=\s?[(\[:])|(?<![^\W_])_|_(?![^\W_])"
    r"|^(?:[#>]|[-+=](?=[\s=-]))|(?<=^\d)[.)](?=\s)|(?<=^\d\d)[.)](?=\s)"
)
ENTITIES = {"<": "&lt;", "&": "&amp;", "~": "&#126;"}  # not every renderer takes a backslash before these
# What spreadsheets take for a formula, wide letters too, unless it is a number.
FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠](?!(?<=[+-])(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?\Z)(?!\s*\Z)")


@dataclass(frozen=True)
class Column:
    """A column of texts, or of numbers (to the right).

    ``wrap`` allows line breaks; ``marked`` cells of a bold row are bold in markdown and LaTeX; ``spare`` columns are left out of a
    terminal that has no room for them, the last one first.
    """

    heading: str
    number: bool = False
    wrap: bool = True
    marked: bool = False
    spare: bool = False


@dataclass(frozen=True)
class Row:
    """Texts in the order of the columns. A bold row stands out; lines part rows of different groups in a terminal."""

    cells: Sequence[str | Text]
    bold: bool = False
    group: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", _shown(self.cells))


@dataclass(frozen=True)
class Table:
    """Columns and rows, with the notes that stand below; rich prints it as it is."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str | Text] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", one_line(self.title))
        object.__setattr__(self, "notes", _shown(self.notes))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        # Text, not strings: a name in square brackets would be read as markup.
        def text(value: str | Text, style: str = "") -> Text:
            return Text(value, style) if isinstance(value, str) else value

        places = list(range(len(self.columns)))
        narrow = self._least_width(places, narrow=False) > options.max_width
        spare = [place for place in places if narrow and self.columns[place].spare]
        while spare and self._least_width(places, narrow=True) > options.max_width:
            places.remove(spare.pop())
        left_out = [column.heading for place, column in enumerate(self.columns) if place not in places]
        table = RichTable(title=Text(self.title, "table.title"), title_justify="left", caption_justify="left")
        table.show_header = any(column.heading for column in self.columns)
        if narrow:
            table.box, table.padding, table.show_edge, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False, False
        for column in (self.columns[place] for place in places):
            table.add_column(
                text(column.heading.replace(" ", "\n" if narrow else " ")),
                justify="right" if column.number else "left",
                no_wrap=not column.wrap,
                overflow="fold",
            )
        for above, row in zip([None, *self.rows], self.rows, strict=False):
            if above is not None and row.group != above.group:
                table.add_section()
            table.add_row(*(text(row.cells[place], "bold" if row.bold else "") for place in places))
        missing = [f"Left out at this width: {', '.join(left_out)}"] if left_out else []
        table.caption = Text("\n").join(map(text, [*self.notes, *missing]))
        yield table

    def _least_width(self, places: Iterable[int], *, narrow: bool) -> int:
        from rich.cells import cell_len  # some letters take two places

        widths, between = self._widths("\n" if narrow else " ", cell_len), 2 if narrow else 3
        least = (min(widths[place], LEAST) if self.columns[place].wrap else widths[place] for place in places)
        return 1 + sum(between + width for width in least)

    def _widths(self, space: str = " ", width: Callable[[str], int] = len) -> list[int]:
        lines = ([column.heading.replace(" ", space) for column in self.columns], *(row.cells for row in self.rows))
        return [
            max(width(line) for cell in cells for line in str(cell).split("\n")) for cells in zip(*lines, strict=True)
        ]

    def markdown(self) -> str:
        """Return the table as markdown, the notes below, a paragraph each."""
        lines = [
            [markdown_text(column.heading) for column in self.columns],
            ["---:" if column.number else "---" for column in self.columns],
            *self._texts(markdown_text, "**{}**"),
        ]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return "\n\n".join([table, *(markdown_text(str(note)) for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """Return the table for LaTeX (booktabs), title and notes as its caption."""
        import pandas as pd

        headings = [_latex_text(column.heading) for column in self.columns]
        return pd.DataFrame(self._texts(_latex_text, r"\textbf{{{}}}"), columns=headings).to_latex(
            index=False,
            column_format="".join("r" if column.number else "l" for column in self.columns),
            caption=_latex_text(" ".join(f"{str(part).rstrip('.')}." for part in (self.title, *self.notes))),
        )

    def plain(self) -> str:
        """Return columns of text with nothing cut off, for what may be long: rich takes 13 s for the whole catalogue."""
        lines = ([column.heading.upper() for column in self.columns], *self._texts(one_line, "{}"))
        widths = [min(WIDEST, max(map(len, cells))) for cells in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in lines
        )

    def _texts(self, escape: Callable[[str], str], bold: str) -> list[list[str]]:
        return [
            [
                bold.format(escape(str(cell))) if row.bold and column.marked else escape(str(cell))
                for column, cell in zip(self.columns, row.cells, strict=True)
            ]
            for row in self.rows
        ]


def texts(*headings: str, **also: bool) -> tuple[Column, ...]:
    """Return columns of text, ``marked`` or ``spare`` if so said."""
    return tuple(Column(heading, **also) for heading in headings)


def numbers(*headings: str, **also: bool) -> tuple[Column, ...]:
    """Return columns of numbers, which stay on their line."""
    return texts(*headings, number=True, wrap=False, **also)


def facts_table(title: str, facts: Mapping[str, str]) -> Table:
    """Return facts of one thing, a row each, without headings."""
    return Table(title, (Column("", wrap=False), Column("")), [Row(fact) for fact in facts.items()])


def _shown(texts: Iterable[str | Text]) -> list[str | Text]:
    return [visible(text) if isinstance(text, str) else text for text in texts]


def markdown_text(text: str) -> str:
    """Return a text on one line, escaped for markdown: no formatting, HTML or link comes of it."""
    return MARKDOWN.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), " ".join(one_line(text).split()))


def fenced(text: str) -> str:
    """Return a text as a code block of markdown that no line of it can end."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=2))
    return f"{fence}\n{visible(text)}\n{fence}"


def for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` as CSV has it: texts `visible`, an apostrophe before what a spreadsheet would run, numbers as they are."""
    columns = [str(name) for name, kind in frame.dtypes.items() if not _is_plain(kind)]
    return frame.assign(**{name: frame[name].map(_cell_text) for name in columns})


def _is_plain(kind: Any) -> bool:
    return getattr(kind, "kind", "O") in "biufcmM"


def _cell_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return visible(f"'{value}" if FORMULA.match(value) else value)


def _latex_text(text: str) -> str:
    return one_line(text).translate(LATEX)


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort a leaderboard by benchmark, the best score first; scores that are missing come last."""
    best_first = (
        frame["score"].astype(float).where(frame["higher_is_better"].astype(bool), -frame["score"].astype(float))
    )
    keyed = frame.assign(_rank=-best_first).sort_values(["benchmark", "_rank", "model"], na_position="last")
    return keyed.drop(columns="_rank").reset_index(drop=True)


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one dict per row, None for what is not known."""
    values = frame.astype(object)
    return [
        {str(name): value for name, value in row.items()}
        for row in values.where(values.notna(), None).to_dict("records")
    ]


def score_text(score: float | None, stderr: float | None) -> str:
    """Write a score with its standard error, to four decimals."""
    if score is None:
        return "-"
    return f"{score:.4f}" if stderr is None else f"{score:.4f} ± {stderr:.4f}"


def interval_text(low: float | None, high: float | None) -> str:
    """Write an interval, to four decimals; empty where there is none."""
    return "" if low is None or high is None else f"[{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    if math.isinf(value):
        return "-∞" if value < 0 else "∞"
    return f"{value:.4f}".replace("-0.0000", "0.0000")


def p_text(p: float | None) -> str:
    """Write a p-value, to four decimals; empty where there is none."""
    return "" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def duration(seconds: float) -> str:
    """Write seconds as a person would: ``40 s``, ``12 min``, ``3.4 h``, ``2.1 d``."""
    for size, name in ((86400 * 2, "d"), (3600 * 1.5, "h"), (100, "min")):
        if seconds >= size:
            value = seconds / {"d": 86400, "h": 3600, "min": 60}[name]
            return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def difference_columns(better: str, worse: str) -> tuple[Column, ...]:
    """Return the columns of `difference_cells`."""
    return (
        *numbers("difference", marked=True),
        Column("95% interval", wrap=False),
        *numbers("p", spare=True),
        *numbers("p (Holm)", "docs"),
        *numbers(better, worse, spare=True),
        *texts("test", spare=True),
    )


def difference_cells(row: Mapping[str, Any], better: int, worse: int) -> list[str]:
    """Return the texts of a paired difference: itself, interval, p-values, docs, how many are ``better`` and ``worse``, method."""
    difference = row["difference"]
    return [
        "-" if difference is None else f"{difference:+.4f}",
        interval_text(row["low"], row["high"]),
        p_text(row["p"]),
        p_text(row["p_holm"]),
        f"{row['docs']:,}" + (f" (-{row['left_out']:,})" if row["left_out"] else ""),
        f"{better:,}",
        f"{worse:,}",
        row["method"],
    ]


def is_significant(row: Mapping[str, Any]) -> bool:
    """Whether a difference is significant at 5% after Holm's correction."""
    return row["p_holm"] is not None and row["p_holm"] <= ALPHA


def span_text(values: tuple[float, float, float]) -> str:
    """Write a median with its interval: ``0.40 (0.20 – 0.80)``."""
    low, middle, high = values
    return f"{middle:,.2f} ({low:,.2f} – {high:,.2f})"
