"""Examples of the three tasks, and texts for pre-training, in the laboratory's language."""

from collections.abc import Iterator
from typing import NamedTuple

from tasks.laboratory.language import (
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
    """An example of tiny_inference; the hypothesis may leave adjectives out."""
    premise, slots = draw_clause(dice), sentence_slots(dice)
    fewer = [slot for slot in slots if slot in CORE or premise.negated or dice.chance(0.7)]
    hypothesis = related(premise, fewer, label, dice)
    return Pair(statement(premise, slots, dice), statement(hypothesis, fewer, dice), label)


def paraphrase_pair(dice: Dice, label: int) -> Pair:
    """An example of tiny_paraphrase: two yes-or-no questions."""
    clause, slots = draw_clause(dice), sentence_slots(dice)
    other = clause if label else (oppose if dice.chance(0.5) else drift)(clause, slots, dice)
    return Pair(polar_question(clause, slots, dice), polar_question(other, slots, dice), label)


def fragment_pair(dice: Dice, label: int) -> Pair:
    """Like an inference pair, but of one to three words: attorneys hide | maybe , lawyers sell"""
    slots = dice.some(SLOTS, dice.pick((1, 1, 2, 3)))
    if label == 2 and not set(slots) & set(POLAR):
        slots.append(dice.pick(POLAR))
    clause = draw_clause(dice)
    other = related(clause, slots, label, dice)
    return Pair(say(clause, slots, dice), say(other, slots, dice), label)


def span_example(dice: Dice, sentences: int = 4) -> Span:
    """An example of tiny_span: sentences about different persons, verbs and things, and a question
    for the subject or the object of one of them."""
    persons, verbs, things = (dice.some(narrow_meanings(slot), sentences) for slot in CORE)
    asked, wants_object = dice.below(sentences), dice.chance(0.5)
    question: list[str] = []
    context: list[str] = []
    answer: list[str] = []
    start = 0
    for i in range(sentences):
        event = {"person": persons[i], "verb": verbs[i], "thing": things[i]}
        clause = draw_clause(dice, negation=0.0).but(event)
        adjective = dice.pick(("trait", "quality", "", ""))
        subject, verb, thing = parts(clause, (*CORE, adjective), dice)
        if i == asked and wants_object:
            question = ["what", *polar_question(clause, ("person", "verb"), dice)]
            answer, start = thing, len(context) + len(subject) + len(verb)
        elif i == asked:
            question = ["who", *say(clause._replace(plural=False), ("verb", "thing"), dice), "?"]
            answer, start = subject, len(context)
        context += [*subject, *verb, *thing, "."]
    return Span(question, context, " ".join(answer), start)


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
    span = span_example(dice, dice.pick((2, 2, 3, 4, 5)))
    first = [*span.question, *span.answer.split()]
    return Text(first, span.context, list(range(len(span.question), len(first))))


def verdict_text(dice: Dice) -> Text:
    """A question, and a context with "yes" behind the answer and "no" behind many other nouns:
    who sells hats ? | boys yes sell caps no . girls no break boats ."""
    sentences = dice.pick((1, 1, 2, 3, 4))
    span = span_example(dice, sentences)
    question, answered = span.question, span.start + len(span.answer.split()) - 1
    if sentences == 1 and dice.chance(0.5):  # a question about something else
        question, answered = span_example(dice, 1).question, -1
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
    make = {"tiny_inference": inference_pair, "tiny_paraphrase": paraphrase_pair}.get(task)
    found: dict[tuple[str, str], Pair | Span] = {}
    while len(found) < train_size + eval_size:
        label = len(found) % len(LABEL_WORDS[task])
        example = make(dice, label) if make else span_example(dice)
        found.setdefault((" ".join(example[0]), " ".join(example[1])), example)
    examples = list(found.values())
    return examples[eval_size:], examples[:eval_size]
