"""Writes the docs of the bundled benchmarks that are made: ``python -m core.benchmarks.generate``. Same code, same bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SEED = 20261123
ARITHMETIC_DOCS = 240
FEWSHOT_DOCS = 8
CHOICES = 4

NAMES = ["Ana", "Ben", "Chloe", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas"]
THINGS = ["apples", "books", "coins", "eggs", "pencils", "stamps", "shells", "buttons"]

# Common knowledge, written by hand: subject → answer.
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "Poland": "Warsaw",
    "Austria": "Vienna", "Hungary": "Budapest", "Greece": "Athens", "Sweden": "Stockholm", "Norway": "Oslo",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Ireland": "Dublin", "Belgium": "Brussels", "Russia": "Moscow",
    "Ukraine": "Kyiv", "Turkey": "Ankara", "Egypt": "Cairo", "Kenya": "Nairobi", "Ethiopia": "Addis Ababa", "Morocco": "Rabat",
    "Ghana": "Accra", "Senegal": "Dakar", "India": "New Delhi", "China": "Beijing", "Japan": "Tokyo", "Thailand": "Bangkok",
    "Vietnam": "Hanoi", "Indonesia": "Jakarta", "Iran": "Tehran", "Iraq": "Baghdad", "Israel": "Jerusalem", "Nepal": "Kathmandu",
    "Mongolia": "Ulaanbaatar", "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
    "Argentina": "Buenos Aires", "Colombia": "Bogotá", "Ecuador": "Quito", "Uruguay": "Montevideo", "Australia": "Canberra",
    "New Zealand": "Wellington", "Iceland": "Reykjavik", "Croatia": "Zagreb", "Serbia": "Belgrade", "Bulgaria": "Sofia",
    "Romania": "Bucharest", "Latvia": "Riga", "Estonia": "Tallinn", "Lithuania": "Vilnius", "Jordan": "Amman",
}  # fmt: skip
CONTINENTS = {
    "France": "Europe", "Kenya": "Africa", "Japan": "Asia", "Brazil": "South America", "Canada": "North America",
    "Nigeria": "Africa", "India": "Asia", "Peru": "South America", "Sweden": "Europe", "Mexico": "North America",
    "Algeria": "Africa", "Thailand": "Asia", "Chile": "South America", "Poland": "Europe", "Cuba": "North America",
    "Tanzania": "Africa", "Vietnam": "Asia", "Bolivia": "South America", "Italy": "Europe", "New Zealand": "Oceania",
    "Fiji": "Oceania", "Samoa": "Oceania",
}  # fmt: skip
ELEMENTS = {
    "hydrogen": "H", "helium": "He", "lithium": "Li", "carbon": "C", "nitrogen": "N", "oxygen": "O", "sodium": "Na",
    "magnesium": "Mg", "aluminium": "Al", "silicon": "Si", "phosphorus": "P", "sulphur": "S", "chlorine": "Cl",
    "potassium": "K", "calcium": "Ca", "iron": "Fe", "copper": "Cu", "zinc": "Zn", "silver": "Ag", "tin": "Sn", "gold": "Au",
    "mercury": "Hg", "lead": "Pb", "uranium": "U", "neon": "Ne", "argon": "Ar", "nickel": "Ni", "iodine": "I",
}  # fmt: skip
CLASSES = {
    "a dog": "mammal", "a whale": "mammal", "a bat": "mammal", "an elephant": "mammal", "a dolphin": "mammal", "an eagle": "bird",
    "a penguin": "bird", "an owl": "bird", "an ostrich": "bird", "a sparrow": "bird", "a salmon": "fish", "a shark": "fish",
    "a trout": "fish", "a tuna": "fish", "a frog": "amphibian", "a toad": "amphibian", "a newt": "amphibian",
    "a snake": "reptile", "a lizard": "reptile", "a crocodile": "reptile", "a turtle": "reptile", "an ant": "insect",
    "a bee": "insect", "a butterfly": "insect", "a mosquito": "insect", "a beetle": "insect",
}  # fmt: skip
YOUNG = {
    "a dog": "puppy", "a cat": "kitten", "a cow": "calf", "a horse": "foal", "a sheep": "lamb", "a goat": "kid", "a pig": "piglet",
    "a hen": "chick", "a duck": "duckling", "a goose": "gosling", "a bear": "cub", "a deer": "fawn", "a swan": "cygnet",
    "a frog": "tadpole", "a kangaroo": "joey", "an eagle": "eaglet",
}  # fmt: skip
COLOURS = {
    "grass": "green", "a ripe banana": "yellow", "snow": "white", "coal": "black", "blood": "red", "a clear sky at noon": "blue",
    "a carrot": "orange", "a flamingo": "pink", "chocolate": "brown", "an elephant": "grey", "a ripe aubergine": "purple",
}  # fmt: skip
MONTHS = {
    "January": "February", "February": "March", "March": "April", "April": "May", "May": "June", "June": "July",
    "July": "August", "August": "September", "September": "October", "October": "November", "November": "December",
    "December": "January",
}  # fmt: skip
TOOLS = {
    "cut paper": "scissors", "drive in a nail": "hammer", "tell the time": "clock", "sweep the floor": "broom",
    "measure temperature": "thermometer", "see distant stars": "telescope", "see tiny cells": "microscope",
    "open a locked door": "key", "dig a hole": "shovel", "write a letter": "pen", "eat soup": "spoon", "dry your hands": "towel",
    "stay dry in the rain": "umbrella", "find north": "compass", "weigh flour": "scale", "comb your hair": "comb",
}  # fmt: skip
LANGUAGES = {
    "Brazil": "Portuguese", "Mexico": "Spanish", "Austria": "German", "Egypt": "Arabic", "Iran": "Persian", "Japan": "Japanese",
    "China": "Mandarin", "Israel": "Hebrew", "Greece": "Greek", "Hungary": "Hungarian", "Poland": "Polish", "Turkey": "Turkish",
    "Sweden": "Swedish", "Finland": "Finnish", "Italy": "Italian", "Vietnam": "Vietnamese", "Thailand": "Thai",
}  # fmt: skip
SENSES = {"eyes": "sight", "ears": "hearing", "nose": "smell", "tongue": "taste", "skin": "touch"}

# Question → its table.
TABLES = [
    ("What is the capital of {}?", CAPITALS),
    ("On which continent is {}?", CONTINENTS),
    ("What is the chemical symbol of {}?", ELEMENTS),
    ("What kind of animal is {}?", CLASSES),
    ("What is the young of {} called?", YOUNG),
    ("What colour is {}?", COLOURS),
    ("Which month comes after {}?", MONTHS),
    ("What do you use to {}?", TOOLS),
    ("Which language do most people speak in {}?", LANGUAGES),
    ("Which sense belongs to the {}?", SENSES),
]

OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("early", "late"), ("open", "closed"), ("full", "empty"),
    ("light", "dark"), ("wet", "dry"), ("young", "old"), ("rich", "poor"), ("hard", "soft"), ("loud", "quiet"),
    ("strong", "weak"), ("true", "false"), ("near", "far"), ("clean", "dirty"), ("thick", "thin"), ("sharp", "blunt"),
    ("happy", "sad"), ("first", "last"), ("deep", "shallow"), ("wide", "narrow"), ("sweet", "bitter"), ("rough", "smooth"),
    ("brave", "cowardly"), ("cheap", "expensive"), ("easy", "difficult"), ("alive", "dead"), ("tall", "short"), ("safe", "dangerous"),
]  # fmt: skip


def arithmetic() -> list[dict[str, Any]]:
    """Return word problems and sums of small numbers: question, answer (an integer as text)."""
    rng = random.Random(SEED)
    docs: dict[str, str] = {}
    while len(docs) < ARITHMETIC_DOCS + FEWSHOT_DOCS:
        first, second, third = rng.randint(2, 20), rng.randint(2, 12), rng.randint(1, 9)
        name, other = rng.sample(NAMES, 2)
        thing = rng.choice(THINGS)
        problems = [
            (f"What is {first} + {second}?", first + second),
            (f"What is {first + second} - {second}?", first),
            (
                f"{name} has {first} {thing} and {other} gives {name} {second} more. How many {thing} does {name} have?",
                first + second,
            ),
            (f"{name} has {first + third} {thing} and loses {third}. How many {thing} are left?", first),
            (f"There are {second} boxes with {third} {thing} each. How many {thing} are there?", second * third),
            (f"What is {first} + {second} + {third}?", first + second + third),
        ]
        question, answer = problems[len(docs) % len(problems)]
        docs.setdefault(question, str(answer))
    return [{"question": question, "answer": answer} for question, answer in docs.items()]


def facts() -> list[dict[str, Any]]:
    """Return questions with four choices of one kind: question, choices, answer (index of the right one)."""
    rng = random.Random(SEED + 1)
    docs = []
    for question, table in TABLES:
        values = sorted(set(table.values()))
        for subject, right in table.items():
            wrong = rng.sample([value for value in values if value != right], CHOICES - 1)
            docs.append(_choice(rng, question.format(subject), right, wrong))
    words = [word for pair in OPPOSITES for word in pair]
    for first, second in OPPOSITES:
        wrong = rng.sample([word for word in words if word not in (first, second)], CHOICES - 1)
        docs.append(_choice(rng, f"What is the opposite of {first}?", second, wrong))
    rng.shuffle(docs)
    return docs


def _choice(rng: random.Random, question: str, right: str, wrong: list[str]) -> dict[str, Any]:
    answer = rng.randrange(CHOICES)
    return {"question": question, "choices": [*wrong[:answer], right, *wrong[answer:]], "answer": answer}


def files() -> dict[str, str]:
    """Return file name → content of everything that is generated."""
    sums, questions = arithmetic(), facts()
    rows = {
        "arithmetic_train.jsonl": sums[:FEWSHOT_DOCS],
        "arithmetic.jsonl": sums[FEWSHOT_DOCS:],
        "facts_train.jsonl": questions[:FEWSHOT_DOCS],
        "facts.jsonl": questions[FEWSHOT_DOCS:],
    }
    return {name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found) for name, found in rows.items()}


if __name__ == "__main__":
    for name, content in files().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8")
