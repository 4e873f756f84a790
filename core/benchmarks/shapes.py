"""Pictures of coloured shapes and questions about them, made at load: same code, same docs and pixels."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from typing import Any

SEED = 20261124
DOCS_OF_A_KIND = 24
CELL = 32  # pixels; one figure each, so that none covers another
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 140, 60),
    "blue": (40, 90, 220),
    "yellow": (245, 200, 30),
    "purple": (140, 60, 170),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star")
NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
BACKGROUNDS = ("white", "lightgrey", "lavender")


def rows(**_metadata: Any) -> Any:
    """Make the docs: question, its possible answers and the right one, and what its picture shows. A ``datasets.DatasetDict``."""
    from datasets import Dataset, DatasetDict

    return DatasetDict({"test": Dataset.from_list(list(_docs(random.Random(SEED))))})


def draw(doc: dict[str, Any]) -> list[Any]:
    """Draw a doc's picture: PIL, RGB, 64 to 128 pixels a side."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (doc["width"], doc["height"]), doc["background"])
    pen = ImageDraw.Draw(picture)
    for figure in doc["figures"]:
        x, y, size, colour = figure["x"], figure["y"], figure["size"], COLOURS[figure["colour"]]
        if figure["shape"] == "circle":
            pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        elif figure["shape"] == "square":
            pen.rectangle((x - size, y - size, x + size, y + size), fill=colour)
        else:
            pen.polygon(_corners(figure["shape"], x, y, size), fill=colour)
    return [picture]


def results(doc: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Score one answer: right where it names the right one of the doc's choices and no other."""
    words = [NUMBERS.get(word, word) for word in re.findall(r"[a-z]+|[0-9]+", answers[0].lower())]
    return {"acc": float(set(words) & set(doc["choices"]) == {doc["answer"]})}


def _docs(rng: random.Random) -> Iterator[dict[str, Any]]:
    colours, numbers = list(COLOURS), list(NUMBERS.values())
    for index in range(DOCS_OF_A_KIND):
        shape, colour = SHAPES[index % len(SHAPES)], colours[index % len(colours)]
        yield _doc(rng, "Which shape is in the picture", SHAPES, shape, [(shape, rng.choice(colours))])
        yield _doc(rng, "Which colour is the shape", colours, colour, [(rng.choice(SHAPES), colour)])
        number = numbers[index % len(numbers)]
        several = [(rng.choice(SHAPES), rng.choice(colours)) for _ in range(int(number))]
        yield _doc(rng, "How many shapes are in the picture", numbers, number, several)
        others = [name for name in SHAPES if name != shape]
        beside = zip(others, rng.sample([name for name in colours if name != colour], len(others)), strict=True)
        yield _doc(rng, f"Which colour is the {shape}", colours, colour, [(shape, colour), *beside])


def _doc(
    rng: random.Random, question: str, choices: list[str] | tuple[str, ...], answer: str, figures: list[tuple[str, str]]
) -> dict[str, Any]:
    columns, lines = rng.randint(3, 4), rng.randint(2, 4)
    cells = rng.sample([(column, line) for column in range(columns) for line in range(lines)], len(figures))
    placed = []
    for (column, line), (shape, colour) in zip(cells, figures, strict=True):
        size = rng.randint(8, 13)
        free = CELL // 2 - size - 1
        x, y = (CELL * cell + CELL // 2 + rng.randint(-free, free) for cell in (column, line))
        placed.append({"shape": shape, "colour": colour, "x": x, "y": y, "size": size})
    return {
        "question": f"{question}: {', '.join(choices[:-1])} or {choices[-1]}?",
        "choices": list(choices),
        "answer": answer,
        "width": CELL * columns,
        "height": CELL * lines,
        "background": rng.choice(BACKGROUNDS),
        "figures": placed,
    }


def _corners(shape: str, x: int, y: int, size: int) -> list[tuple[int, int]]:
    count, inner = (3, 1.0) if shape == "triangle" else (10, 0.4)
    radii = [size * (inner if corner % 2 else 1.0) for corner in range(count)]
    turns = [2 * math.pi * corner / count for corner in range(count)]
    return [(round(x + r * math.sin(t)), round(y - r * math.cos(t))) for r, t in zip(radii, turns, strict=True)]
