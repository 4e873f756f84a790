"""Writes the data of the bundled benchmarks: ``python -m core.benchmarks.generate``. Same code, same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.benchmarks.facts import OPPOSITES, TABLES

SEED = 20261123
ARITHMETIC_DOCS = 240
FEWSHOT_DOCS = 8
CHOICES = 4

NAMES = ["Ana", "Ben", "Chloe", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas"]
THINGS = ["apples", "books", "coins", "eggs", "pencils", "stamps", "shells", "buttons"]


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
    return {
        "arithmetic_train.jsonl": _lines(sums[:FEWSHOT_DOCS]),
        "arithmetic.jsonl": _lines(sums[FEWSHOT_DOCS:]),
        "facts_train.jsonl": _lines(questions[:FEWSHOT_DOCS]),
        "facts.jsonl": _lines(questions[FEWSHOT_DOCS:]),
        "prose.jsonl": _lines({"text": text} for text in PASSAGES),
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name, content in files().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8")


PASSAGES = [
    "The harbour was quiet before the boats came in. Gulls stood along the wall as if they had bought tickets, all of them facing the same way. When the first engine could be heard behind the headland, they lifted together and went out to meet it, and the old man who mended nets on the quay put down his needle, because there would be no more peace until noon.",
    "A steelyard is a balance with arms of unequal length. The load hangs from the short arm, close to the pivot, and a small weight is moved along the long arm until the beam is level. With one light weight and a scale scratched into iron, a merchant could weigh a handful of saffron in the morning and a sack of wool in the afternoon.",
    "My grandmother kept her recipes in a tin that had once held biscuits. Most of them were written on the backs of envelopes, and none gave a quantity. Flour was as much as it takes, butter was a piece, and the oven was either asleep or awake. It was only when I tried to cook from them that I understood how much she had never needed to write down.",
    "The road over the pass is closed from November until May. In those months the village on the far side can be reached only on foot, or by the small train that crawls through the tunnel twice a day. People there keep large larders and long grudges, and when the plough breaks through in spring they come out to watch it as others would watch a parade.",
    "Before you repair a clock, listen to it. A healthy movement has an even beat, like someone walking home without hurry. If one step is longer than the other, the clock may simply stand on a crooked shelf, and nothing needs to be taken apart. Half of all repairs, the clockmaker used to say, are done with a folded piece of paper under one foot.",
    "Rain in the desert does not soak into the ground at once. The soil is baked hard, and the first water runs over it as it would over tiles, gathering in every hollow until a dry valley becomes a river for an hour. Travellers are told never to sleep in such a valley, however soft the sand, even when the sky above it is clear.",
    "The library had a rule that no book could be lent for longer than two weeks, and a librarian who had never once enforced it. She said that a book which came back late had probably been read twice. On the day she retired, forty people returned novels that had been missing for years, and several of them apologised to the books.",
    "Bees find their way by the sun, and they know where it is even behind clouds, because the sky tells them with light that we cannot see. A bee that has found a good meadow returns to the hive and dances. The angle of the dance gives the direction, its length gives the distance, and her sisters, standing in the dark, read it with their feet.",
    "When the factory closed, the whistle that had divided the day stopped with it. For some weeks people were late for everything. Children came home from school at odd times, soup boiled over, and the pub opened to nobody. Then the priest began to ring the church bell at six, at noon, and at five, and the town fell back into step without a word being said.",
    "To sharpen a knife, hold it to the stone at a low angle and push as if you meant to slice a thin layer from the surface. Do this ten times on one side and ten on the other. The sound will tell you how it goes: a dull edge scrapes and a keen one sings. Finish on leather, and test the blade on a tomato, not on your thumb.",
    "The orchestra tunes to the oboe, because its note is steady and hard to argue with. One by one the strings slide up or down to meet it, then the brass, then the rest, until the whole room hums. To some listeners this is the best moment of the evening: everything is still possible, and nobody has made a mistake.",
    "On the island there are no snakes, no moles and no traffic lights. The children learn to row before they learn to cycle. A doctor comes every second Thursday if the weather allows, and between her visits people are careful with ladders. Those who leave for the mainland say they miss the quiet; those who stay say they miss the ones who left.",
    "A good map leaves things out. It forgets the trees to show the forest, and forgets the houses to show the street. The art is to know what the traveller will need at the crossroads, in the rain, with one hand on the handlebar. A map that shows everything is as large as the country, and cannot be folded.",
    "The baker starts at two in the morning, when the town belongs to cats. First he wakes the dough, then he feeds the oven, and in the hour between he reads the newspaper of the day before, since the new one is not printed yet. By the time the first customer comes he has already been old for half a day, he says, and is ready to be young again.",
    "Glaciers move, though nobody sees them do it. A hat lost in a crevasse by a climber in his youth may be found by his grandson at the foot of the valley. The ice carries stones of every size, grinds them against the rock, and lets the finest dust go in the stream below, which is why the water there is the colour of milk.",
    "The apprentice was given a block of oak and a plane and told to make it flat. He worked all morning and showed it to the master, who laid a ruler on it, held it against the window, and pointed to the light that came through. After a week there was no light. Good, said the master, now make it square.",
    "In winter the lake freezes from the edges. For some days there is a dark circle in the middle where ducks keep the water open by swimming round and round, and then one night, when the wind drops, it closes without a sound. In the morning the ducks stand on the ice, looking like people whose train has been cancelled.",
    "Letters took six weeks to cross the ocean, so every quarrel was out of date. By the time she read that he was angry, he had forgotten why, and by the time he read that she was sorry, there was nothing left to forgive. They were married for fifty years, and both said it was the slow post that had saved them.",
    "The market is set up in darkness and sold in daylight. Farmers from the hills bring cheese and chestnuts, and those from the coast bring fish in wet boxes. They have stood side by side for so long that they speak of each other's weather. At noon what is left is exchanged without money, a crab for a cabbage, and everyone goes home.",
    "An echo needs a wall, a voice and enough distance between them. If the wall is too near, the sound comes back before the word is over and is lost in it. Thirty steps away is about enough. In the quarry behind our school you could call a name and have it returned twice, once by the cut stone and once, later, by the hill.",
    "The night train was full of people who did not want to sleep. A student ate an orange very slowly. Two soldiers played cards for matches. Somebody at the end of the carriage told a long story about a horse, and although the language was foreign to most of us, everyone laughed at the same place, and after that we were no longer strangers.",
    "Salt was once worth as much as silver, and towns grew rich along the roads on which it travelled. It kept meat through the winter and fish across a continent. Today it stands on every table in a glass with holes, and we take it without looking, but the old words remember: those who worked for it were paid a salary.",
    "The gardener plants trees whose shade he will not sit in. He knows this, and chooses the place with care, thinking of roots and roofs and of which way a child would run. Asked why he does not grow something quicker, he says that beans are for the summer and oaks are for the argument that there will be another one.",
    "At the top of the lighthouse there is a lens taller than a man, made of rings of glass. A lamp no stronger than one in a kitchen stands at its centre, and the rings bend its light into a beam that reaches twenty miles. Nothing is added; what would have gone to the ceiling and the floor is only persuaded to go out to sea.",
]
