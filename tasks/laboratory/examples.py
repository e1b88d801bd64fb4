"""Examples of the three tasks, and texts for pre-training, in the laboratory's language."""

from collections.abc import Iterator
from typing import NamedTuple

from tasks.laboratory.language import (
    Clause,
    Dice,
    draw_clause,
    drift,
    oppose,
    parts,
    polar_question,
    related,
    say,
    sentence_slots,
    statement,
)
from tasks.laboratory.lexicon import (
    CONNECTIVES,
    CORE,
    POLAR,
    SLOTS,
    Meaning,
    narrow_meanings,
    words_of,
)

TASKS = ("tiny_inference", "tiny_paraphrase", "tiny_span")
LABEL_WORDS = {
    "tiny_inference": CONNECTIVES,
    "tiny_paraphrase": ("no", "yes"),
    "tiny_span": ("yes", "no"),
}  # of label 0, 1, ...; of a span's start and end
TEXT_KINDS = ("relation", "answer", "verdict")


class Pair(NamedTuple):
    """An example of tiny_inference (0 entailment, 1 neutral, 2 contradiction) or tiny_paraphrase
    (0 another question, 1 the same question)."""

    first: list[str]
    second: list[str]
    label: int


class Span(NamedTuple):
    """An example of tiny_span; the answer begins at the word context[start]."""

    question: list[str]
    context: list[str]
    answer: str
    start: int


class Text(NamedTuple):
    """A pre-training text of two segments; `key` are the positions, in first + second, of the words
    that carry its point (the connective, the answer, the verdicts)."""

    first: list[str]
    second: list[str]
    key: list[int]


def inference_pair(dice: Dice, label: int) -> Pair:
    """Two sentences and how they relate; the second may leave adjectives out."""
    premise, slots = draw_clause(dice), sentence_slots(dice)
    fewer = [slot for slot in slots if slot in CORE or premise.negated or dice.chance(0.7)]
    hypothesis = related(premise, fewer, label, dice)
    return Pair(statement(premise, slots, dice), statement(hypothesis, fewer, dice), label)


def inference_example(dice: Dice, label: int) -> Pair:
    """An example of tiny_inference: the premise has a sentence beside the one that counts."""
    pair, beside = inference_pair(dice, label), inference_pair(dice, 0).first
    premise = [*pair.first, *beside] if dice.chance(0.5) else [*beside, *pair.first]
    return Pair(premise, pair.second, label)


def paraphrase_example(dice: Dice, label: int) -> Pair:
    """An example of tiny_paraphrase: one or two yes-or-no questions on each side, of which one asks
    something else if the label is 0."""
    if dice.chance(0.5):
        clause, slots = draw_clause(dice), sentence_slots(dice)
        other = clause if label else (oppose if dice.chance(0.5) else drift)(clause, slots, dice)
        return Pair(polar_question(clause, slots, dice), polar_question(other, slots, dice), label)
    asked = [draw_clause(dice) for _ in range(2)]
    slots_of = [sentence_slots(dice) for _ in range(2)]
    others = asked if label else changed(asked, slots_of[0], dice)
    sides = [
        [polar_question(clause, slots, dice) for clause, slots in zip(side, slots_of, strict=True)]
        for side in (asked, others)
    ]
    for side in sides:
        if dice.chance(0.5):
            side.reverse()
    return Pair([*sides[0][0], *sides[0][1]], [*sides[1][0], *sides[1][1]], label)


def changed(clauses: list[Clause], slots: list[str], dice: Dice) -> list[Clause]:
    """Two clauses that ask something else: the first turned round or moved, or a part of the first
    exchanged for that of the second."""
    first, second = clauses
    kind = dice.below(3)
    if kind < 2:
        return [(oppose, drift)[kind](first, slots, dice), second]
    slot = dice.pick(CORE)
    given, taken = first.but({slot: second.cells[slot]}), second.but({slot: first.cells[slot]})
    return [drift(first, CORE, dice) if given == first else given, taken]


def fragment_pair(dice: Dice, label: int) -> Pair:
    """Like an inference pair, but of one to three words: attorneys hide | maybe , lawyers sell"""
    slots = dice.some(SLOTS, dice.pick((1, 1, 2, 3)))
    if label == 2 and not set(slots) & set(POLAR):
        slots.append(dice.pick(POLAR))
    clause = draw_clause(dice)
    other = related(clause, slots, label, dice)
    return Pair(say(clause, slots, dice), say(other, slots, dice), label)


class Event(NamedTuple):
    """Who does, or never does, what to which thing."""

    person: Meaning
    verb: Meaning
    thing: Meaning
    negated: bool = False

    @property
    def as_opposite(self) -> "Event":
        """The same said by the verb's opposite: never buys for sells."""
        row, cell = self.verb
        return self._replace(verb=(row, 1 - cell), negated=not self.negated)


def span_text(dice: Dice, sentences: int) -> Span:
    """Sentences about different persons, verbs and things, and a question for the subject or the
    object of one of them."""
    events, asked, wants_object = draw_events(dice, sentences)
    return told(events, asked, wants_object, dice)


def span_example(dice: Dice) -> Span:
    """An example of tiny_span: like a span text, but two in three of the other sentences share
    parts with the one that is asked for, and a few events are told by the opposite verb."""
    events, asked, wants_object = draw_events(dice, 6)
    events = [event._replace(negated=dice.chance(0.08)) for event in events]
    wanted = events[asked]
    for place, event in enumerate(events):
        kind = dice.below(3) if place != asked else 2
        if kind == 0:  # others do the same to others
            event = event._replace(verb=wanted.verb, negated=wanted.negated)
        elif kind == 1:  # the opposite is done by the same, or to the same
            same = {"person": wanted.person} if wants_object else {"thing": wanted.thing}
            event = event._replace(verb=wanted.verb, negated=not wanted.negated, **same)
        if kind < 2 and dice.chance(0.06):
            event = event.as_opposite
        events[place] = event
    said = wanted.as_opposite if dice.chance(0.06) else wanted
    return told(events, asked, wants_object, dice, said)


def draw_events(dice: Dice, number: int) -> tuple[list[Event], int, bool]:
    """Events without a common part, which of them is asked for, and whether for its object."""
    persons, verbs, things = (dice.some(narrow_meanings(slot), number) for slot in CORE)
    asked, wants_object = dice.below(number), dice.chance(0.5)
    return list(map(Event, persons, verbs, things)), asked, wants_object


def told(
    events: list[Event], asked: int, wants_object: bool, dice: Dice, said: Event | None = None
) -> Span:
    """Events in sentences, and the question for one of them; `said` is how the question says it."""
    question: list[str] = []
    context: list[str] = []
    answer: list[str] = []
    start = 0
    for place, event in enumerate(events):
        clause = meant(event, draw_clause(dice, negation=0.0))
        adjective = dice.pick(("trait", "quality", "", ""))
        subject, verb, thing = parts(clause, (*CORE, adjective), dice)
        if place == asked:
            clause = meant(said or event, clause)
        if place == asked and wants_object:
            question = ["what", *polar_question(clause, ("person", "verb"), dice)]
            answer, start = thing, len(context) + len(subject) + len(verb)
        elif place == asked:
            question = ["who", *say(clause._replace(plural=False), ("verb", "thing"), dice), "?"]
            answer, start = subject, len(context)
        context += [*subject, *verb, *thing, "."]
    return Span(question, context, " ".join(answer), start)


def meant(event: Event, clause: Clause) -> Clause:
    """The clause with the meaning of an event; its adjectives and its number stay."""
    cells = {"person": event.person, "verb": event.verb, "thing": event.thing}
    return clause.but(cells)._replace(negated=event.negated)


def relation_text(dice: Dice) -> Text:
    """Two clauses or fragments and how they relate: doctors hide hats . | no , doctors show hats .
    The connective may also open the first or end the second segment."""
    label = dice.below(3)
    first, second, _ = (inference_pair if dice.chance(0.5) else fragment_pair)(dice, label)
    connective = LABEL_WORDS["tiny_inference"][label]
    place = dice.below(3)
    if place == 0:
        return Text([connective, ",", *first], second, [0])
    if place == 1:
        return Text(first, [connective, ",", *second], [len(first)])
    return Text(first, [*second, ",", connective], [len(first) + len(second) + 1])


def answer_text(dice: Dice) -> Text:
    """A question with its answer, and the context: who sells hats ? boys | boys sell hats . ..."""
    span = span_text(dice, dice.pick((2, 2, 3, 4, 5)))
    first = [*span.question, *span.answer.split()]
    return Text(first, span.context, list(range(len(span.question), len(first))))


def verdict_text(dice: Dice) -> Text:
    """A question, and a context with "yes" behind the answer and "no" behind many other nouns:
    who sells hats ? | boys yes sell caps no . girls no break boats ."""
    sentences = dice.pick((1, 1, 2, 3, 4))
    span = span_text(dice, sentences)
    question, answered = span.question, span.start + len(span.answer.split()) - 1
    if sentences == 1 and dice.chance(0.5):  # a question about something else
        question, answered = span_text(dice, 1).question, -1
    nouns = {*words_of("person"), *words_of("thing")}
    second: list[str] = []
    key = []
    for place, word in enumerate(span.context):
        second.append(word)
        if place == answered or (word in nouns and dice.chance(0.6)):
            key.append(len(question) + len(second))
            second.append("yes" if place == answered else "no")
    return Text(question, second, key)


def pretraining_texts(kind: str, seed: int) -> Iterator[Text]:
    """Endless pre-training texts of one of TEXT_KINDS."""
    dice = Dice(1000 * seed + TEXT_KINDS.index(kind))
    make = {"relation": relation_text, "answer": answer_text, "verdict": verdict_text}[kind]
    while True:
        yield make(dice)


def task_data(
    task: str, seed: int, train_size: int = 6000, eval_size: int = 1000
) -> tuple[list[Pair | Span], list[Pair | Span]]:
    """Training and evaluation examples of a task; no two of them have the same words.  The labels
    take turns.  The evaluation examples do not depend on the size of the training set."""
    dice = Dice(1000 * seed + len(TEXT_KINDS) + TASKS.index(task))
    make = {"tiny_inference": inference_example, "tiny_paraphrase": paraphrase_example}.get(task)
    found: dict[tuple[str, str], Pair | Span] = {}
    while len(found) < train_size + eval_size:
        label = len(found) % len(LABEL_WORDS[task])
        example = make(dice, label) if make else span_example(dice)
        found.setdefault((" ".join(example[0]), " ".join(example[1])), example)
    examples = list(found.values())
    return examples[eval_size:], examples[:eval_size]
