"""A small artificial language, its pre-training text and three tasks in it.

The language is the material of the laboratory: a tiny BERT learns it by masked-word prediction,
is fine-tuned on three tasks made of it, and is pruned while it is fine-tuned.  The tasks mirror
MNLI (`tiny_inference`), QQP (`tiny_paraphrase`) and SQuAD (`tiny_span`).

What there is to learn, and why.  Every clause says who does what to which thing:

    the  happy  doctor  never  buys  cheap  cars .
         trait  person         verb  quality thing

* Synonyms: every cell of `LEXICON` holds words of one meaning (doctor, physician).
* Hypernyms: the first cell of a row of nouns names the whole row (a doctor is a worker).
* Antonyms: the two cells of a row of traits, verbs or qualities are opposites (buy, sell).
* Agreement: persons and verbs have a form for one and a form for many (the doctor buys, doctors
  buy); a determiner and "does" go with one, "do" goes with many.
* Negation: "never" turns a clause into its opposite.
* Matching: a question is answered by the only sentence of the context that speaks of its event.

Words are whole tokens, so what a word means can only be read off the company it keeps.  The tasks
need exactly this knowledge.  A pre-trained model has it and must only learn to say it at a new
position ([CLS], or the first and last word of the answer); a model with random weights would have
to learn it in a few hundred steps, and cannot.  So what pruning destroys, the
task does not give back.

A task joins two texts by [SEP].  Pre-training text has the same two segments, but says "yes",
"maybe" or "no" somewhere in or beside them, where masked-word prediction can ask for it.  The
tasks' texts are harder than those: a premise has a second sentence, a paraphrase may be of two
questions whose parts were exchanged, and the sentences of a context share parts with the one that
answers.  So the dense model errs too, and a pruned one has something to lose at every density.

All choices are made by `Dice`, which rests on `random.Random.random` alone, the one method whose
sequence Python promises to keep: the same seed gives the same text everywhere.
"""

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from tasks.laboratory.lexicon import (
    CORE,
    DETERMINERS,
    INFLECTED,
    LEXICON,
    POLAR,
    SLOTS,
    Meaning,
)

T = TypeVar("T")


class Clause(NamedTuple):
    """What a clause means: a cell of the lexicon per slot, number of the subject, negation."""

    cells: Mapping[str, Meaning]
    plural: bool
    negated: bool

    def but(self, changes: Mapping[str, Meaning]) -> "Clause":
        """The clause with other meanings in some slots."""
        return self._replace(cells={**self.cells, **changes})


class Dice:
    """Random choices that are the same in every version of Python."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self._random.random() < p

    def below(self, n: int) -> int:
        """One of 0 .. n - 1."""
        return int(self._random.random() * n)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], n: int) -> list[T]:
        """n different ones of the items, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(n)]


def draw_clause(dice: Dice, negation: float = 0.25) -> Clause:
    """A random clause; one noun in ten is a hypernym."""
    cells = {}
    for slot in SLOTS:
        row = dice.below(len(LEXICON[slot]))
        if slot in POLAR:
            cells[slot] = (row, dice.below(2))
        else:
            cells[slot] = (row, 0 if dice.chance(0.1) else 1 + dice.below(3))
    return Clause(cells, plural=dice.chance(0.5), negated=dice.chance(negation))


def say(clause: Clause, slots: Collection[str], dice: Dice, infinitive: bool = False) -> list[str]:
    """Words for the given slots of a clause, each a random synonym; "never" goes with the verb."""
    words = []
    for slot in SLOTS:
        if slot in slots:
            row, cell = clause.cells[slot]
            forms = LEXICON[slot][row][cell].split()
            if slot in INFLECTED:
                forms = forms[clause.plural or (infinitive and slot == "verb") :: 2]
            words += ["never"] if slot == "verb" and clause.negated else []
            words.append(dice.pick(forms))
    return words


def parts(
    clause: Clause, slots: Collection[str], dice: Dice, infinitive: bool = False
) -> tuple[list[str], list[str], list[str]]:
    """Subject (with a determiner if it is one person), verb and object of a sentence."""
    subject, verb, thing = (
        say(clause, [slot for slot in part if slot in slots], dice, infinitive)
        for part in (("trait", "person"), ("verb",), ("quality", "thing"))
    )
    return ([] if clause.plural else [dice.pick(DETERMINERS)]) + subject, verb, thing


def statement(clause: Clause, slots: Collection[str], dice: Dice) -> list[str]:
    """A whole sentence: the happy doctor never buys cheap cars ."""
    subject, verb, thing = parts(clause, slots, dice)
    return [*subject, *verb, *thing, "."]


def polar_question(clause: Clause, slots: Collection[str], dice: Dice) -> list[str]:
    """A yes-or-no question: does the happy doctor never buy cheap cars ?"""
    subject, verb, thing = parts(clause, slots, dice, infinitive=True)
    return ["do" if clause.plural else "does", *subject, *verb, *thing, "?"]


def generalise(clause: Clause, dice: Dice) -> Clause:
    """The clause with some nouns replaced by their hypernyms; it follows from the clause."""
    if clause.negated:  # that no cars are bought does not say that no vehicles are
        return clause
    nouns = [slot for slot in ("person", "thing") if dice.chance(0.3)]
    return clause.but({slot: (clause.cells[slot][0], 0) for slot in nouns})


def oppose(clause: Clause, slots: Collection[str], dice: Dice) -> Clause:
    """A clause that contradicts: some of the given slots turned round, or the negation."""
    polar = [slot for slot in POLAR if slot in slots]
    turned = dice.some(polar, 1 + dice.below(len(polar)))
    if "verb" in slots and dice.chance(0.25):
        clause = clause._replace(negated=not clause.negated)
        turned = [slot for slot in turned if slot != "verb"]
    return clause.but({s: (clause.cells[s][0], 1 - clause.cells[s][1]) for s in turned})


def drift(clause: Clause, slots: Collection[str], dice: Dice) -> Clause:
    """A clause about something else: some of the given slots moved to another meaning."""
    said = [slot for slot in SLOTS if slot in slots]
    changes: dict[str, Meaning] = {}
    for slot in dice.some(said, 1 + dice.below(len(said))):
        row, cell = clause.cells[slot]
        if slot not in POLAR and cell and dice.chance(0.5):  # a doctor becomes a farmer
            changes[slot] = (row, 1 + (cell + dice.below(2)) % 3)
        else:  # a doctor becomes a singer; loving becomes buying or selling
            rows = len(LEXICON[slot])
            changes[slot] = (
                (row + 1 + dice.below(rows - 1)) % rows,
                dice.below(2) if slot in POLAR else cell,
            )
    return clause.but(changes)


def related(clause: Clause, slots: Collection[str], label: int, dice: Dice) -> Clause:
    """A clause that follows from the clause (0), contradicts it (2), or neither (1)."""
    general = generalise(clause, dice)
    return general if label == 0 else (drift, oppose)[label - 1](general, slots, dice)


def sentence_slots(dice: Dice) -> list[str]:
    """Slots of a whole sentence: the core, and often adjectives."""
    return [slot for slot in SLOTS if slot in CORE or dice.chance(0.6)]
