"""The leaderboard and its pairs as LaTeX tables (booktabs)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.board.text import (
    LETTERS_NOTE,
    NUMBERS,
    PAIR_HEADINGS,
    board_cells,
    board_headings,
    is_compared,
    is_significant,
    leaderboard_rows,
    pair_cells,
    plain_rows,
    with_best,
)

if TYPE_CHECKING:
    import pandas as pd

ESCAPES = {
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


def leaderboard_latex(frame: pd.DataFrame, title: str = "Leaderboard") -> str:
    """Return the leaderboard as a LaTeX table (booktabs), a benchmark's best models bold."""
    rows = leaderboard_rows(frame)
    compared = is_compared(rows)
    cells = [_latex_cells(board_cells(row, compared), (1, 3) if best else ()) for row, best in with_best(rows)]
    note = LETTERS_NOTE if any(row.get("letters") for row in rows) else ""
    return _latex(board_headings(compared), cells, f"{title}. {note}".strip())


def pairs_latex(pairs: pd.DataFrame) -> str:
    """Return the pairs as a LaTeX table (booktabs), significant differences bold."""
    cells = [_latex_cells(pair_cells(row), (3,) if is_significant(row) else ()) for row in plain_rows(pairs)]
    return _latex(PAIR_HEADINGS, cells, "Differences between models, on the docs both answered.")


def _latex_cells(cells: Iterable[str], bold: Iterable[int] = ()) -> list[str]:
    marked = set(bold)
    texts = ["".join(ESCAPES.get(letter, letter) for letter in cell) for cell in cells]
    return [f"\\textbf{{{text}}}" if place in marked else text for place, text in enumerate(texts)]


def _latex(headings: Iterable[str], rows: Iterable[list[str]], caption: str) -> str:
    names = list(headings)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex_cells([caption])[0]}}}",
        rf"\begin{{tabular}}{{{''.join('r' if name in NUMBERS else 'l' for name in names)}}}",
        r"\toprule",
        " & ".join(_latex_cells(names)) + r" \\",
        r"\midrule",
        *(" & ".join(cells) + r" \\" for cells in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
