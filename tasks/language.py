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
* Matching: a question is answered by the one sentence of the context that speaks of its event.

Words are whole tokens, so what a word means can only be read off the company it keeps.  The tasks
need exactly this knowledge.  A pre-trained model has it and must only learn to say it in a new
place ([CLS], or the first and last word of the answer); a model with random weights would have to
find it in a few hundred steps, and cannot.  So what pruning destroys, the task does not give back.

A task joins two texts by [SEP].  Pre-training text has the same two segments, but says "yes",
"maybe" or "no" somewhere in or beside them, where masked-word prediction can ask for it.

All choices are made by `Dice`, which rests on `random.Random.random` alone, the one method whose
sequence Python promises to keep: the same seed gives the same text everywhere.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Meaning = tuple[int, int]  # row and cell of a slot's table in LEXICON

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DETERMINERS = ("the", "this", "that")
CONNECTIVES = ("yes", "maybe", "no")
FUNCTION_WORDS = (*CONNECTIVES, *DETERMINERS, "never", "what", "who", "do", "does", ".", ",", "?")

# slot -> rows -> cells; the words of a cell are synonyms.  Persons and verbs come in pairs of forms
# (one, many).  The first cell of a row of nouns is its hypernym; the other rows have two poles.
LEXICON: dict[str, tuple[tuple[str, ...], ...]] = {
    "trait": (
        ("happy glad", "sad gloomy"),
        ("rich wealthy", "poor needy"),
        ("brave bold", "timid fearful"),
        ("clever smart", "stupid foolish"),
        ("kind gentle", "cruel mean"),
    ),
    "person": (
        (
            "worker workers",
            "doctor doctors physician physicians",
            "lawyer lawyers attorney attorneys",
            "farmer farmers grower growers",
        ),
        (
            "child children",
            "boy boys lad lads",
            "girl girls lass lasses",
            "baby babies infant infants",
        ),
        (
            "fighter fighters",
            "soldier soldiers trooper troopers",
            "sailor sailors seaman seamen",
            "archer archers bowman bowmen",
        ),
        (
            "artist artists",
            "singer singers vocalist vocalists",
            "writer writers author authors",
            "actor actors performer performers",
        ),
    ),
    "verb": (
        ("loves love adores adore", "hates hate detests detest"),
        ("buys buy purchases purchase", "sells sell vends vend"),
        ("finds find discovers discover", "loses lose misplaces misplace"),
        ("builds build constructs construct", "destroys destroy wrecks wreck"),
        ("praises praise applauds applaud", "blames blame criticizes criticize"),
        ("hides hide conceals conceal", "shows show reveals reveal"),
        ("keeps keep retains retain", "discards discard dumps dump"),
        ("fixes fix repairs repair", "breaks break smashes smash"),
    ),
    "quality": (
        ("big large", "small little"),
        ("new modern", "old ancient"),
        ("clean spotless", "dirty filthy"),
        ("cheap inexpensive", "costly expensive"),
        ("pretty lovely", "ugly hideous"),
    ),
    "thing": (
        ("vehicles", "cars autos", "boats ships", "bikes bicycles"),
        ("clothes", "coats jackets", "hats caps", "shoes boots"),
        ("foods", "soups broths", "candies sweets", "cakes tarts"),
        ("animals", "dogs hounds", "cats felines", "horses steeds"),
        ("buildings", "houses cottages", "shops stores", "castles forts"),
        ("plants", "flowers blossoms", "bushes shrubs", "trees saplings"),
    ),
}
SLOTS = tuple(LEXICON)  # in the order of a sentence
CORE = ("person", "verb", "thing")  # what every whole sentence says
POLAR = ("trait", "verb", "quality")  # rows of two opposites
INFLECTED = ("person", "verb")  # a form for one and a form for many

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
    """A pre-training text of two segments; `key` are the places, in first + second, of the words
    that carry its point (the connective, the answer, the verdicts)."""

    first: list[str]
    second: list[str]
    key: list[int]


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


def words_of(slot: str) -> list[str]:
    """All words of a slot."""
    return [word for row in LEXICON[slot] for cell in row for word in cell.split()]


def vocabulary() -> list[str]:
    """All tokens of the language, in the order of their ids."""
    return [*SPECIAL_TOKENS, *FUNCTION_WORDS, *(word for slot in SLOTS for word in words_of(slot))]


def similar_words() -> list[list[str]]:
    """Groups of words that fit into the same place of a sentence (same slot and same form)."""
    return [
        words_of(slot)[form::2] if slot in INFLECTED else words_of(slot)
        for slot in SLOTS
        for form in range(1 + (slot in INFLECTED))
    ]


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


def narrow_meanings(slot: str) -> list[Meaning]:
    """All meanings of a slot but the hypernyms."""
    rows = enumerate(LEXICON[slot])
    return [(row, cell) for row, cells in rows for cell in range(slot not in POLAR, len(cells))]


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
