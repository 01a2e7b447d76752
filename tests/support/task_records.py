"""Records for every task and strategy, as many as are wanted: small worlds that a model can learn in a minute."""

from __future__ import annotations

import random
from typing import Any

NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Klara", "Lukas")
TOWNS = ("Paris", "Rome", "Oslo", "Cairo", "Lima", "Quito", "Delhi", "Tokyo", "Sydney", "Dublin")
TRADES = ("baker", "pilot", "nurse", "painter", "farmer", "teacher", "sailor", "tailor")
FRUITS = ("apples", "pears", "plums", "cherries", "figs", "grapes")

Record = dict[str, Any]


def answers(count: int, seed: int = 0) -> list[Record]:
    """Questions whose answers have one form."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    return [
        {"input": f"What is {one} plus {other}?", "output": f"Sum: {one + other}. Thank you for asking!"}
        for one, other in ((draw.randrange(10), draw.randrange(10)) for _ in range(count))
    ]


def summaries(count: int, seed: int = 0) -> list[Record]:
    """Stories, and who bought what where."""
    draw = random.Random(seed)  # noqa: S311
    records = []
    for _ in range(count):
        name, town, fruit = draw.choice(NAMES), draw.choice(TOWNS), draw.choice(FRUITS)
        story = (
            f"It was a cold morning when {name} left the house. After a long way through the rain {name} came to "
            f"{town}, where the market had just begun. There were many stalls, and at last {name} bought {fruit}."
        )
        records.append({"document": story, "summary": f"{name} bought {fruit} in {town}."})
    return records


def questions(count: int, seed: int = 0, *, unanswerable: bool = True) -> list[Record]:
    """Questions on small biographies, in the spelling of SQuAD; every eighth has no answer, where that is wanted."""
    draw = random.Random(seed)  # noqa: S311
    records = []
    for place in range(count):
        name, town, trade = draw.choice(NAMES), draw.choice(TOWNS), draw.choice(TRADES)
        parts = [f"{name} lives in {town}.", f"{name} works as a {trade}.", f"{name} likes {draw.choice(FRUITS)}."]
        draw.shuffle(parts)
        context = " ".join(parts)
        question, answer = draw.choice(((f"Where does {name} live?", town), (f"What is {name}'s job?", trade)))
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        if unanswerable and place % 8 == 7:
            question, answers = f"How old is {name}?", {"text": [], "answer_start": []}
        records.append({"context": context, "question": question, "answers": answers})
    return records


def preferences(count: int, seed: int = 0) -> list[Record]:
    """A short answer is preferred to one that goes on: what is rewarded can be counted in tokens."""
    draw = random.Random(seed)  # noqa: S311
    records = []
    for _ in range(count):
        town, fruit = draw.choice(TOWNS), draw.choice(FRUITS)
        records.append(
            {
                "prompt": f"Are there {fruit} in {town}?",
                "chosen": draw.choice(("Yes.", "No.", "Yes, some.", "Not many.")),
                "rejected": (
                    f"That is a good question about {fruit} in {town}, and there is a lot to be said about it, for "
                    f"{fruit} are many things to many people, and {town} is a town that has seen a lot of them."
                ),
            }
        )
    return records
