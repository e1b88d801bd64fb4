"""The words of the laboratory's language: who does what to which thing.

Words are whole tokens, so what a word means can only be learned from the words around it.
"""

Meaning = tuple[int, int]
"""Row and cell of a slot's table in LEXICON."""

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


def words_of(slot: str) -> list[str]:
    """All words of a slot."""
    return [word for row in LEXICON[slot] for cell in row for word in cell.split()]


def vocabulary() -> list[str]:
    """All tokens of the language, in the order of their ids."""
    return [*SPECIAL_TOKENS, *FUNCTION_WORDS, *(word for slot in SLOTS for word in words_of(slot))]


def similar_words() -> list[list[str]]:
    """Groups of words that are interchangeable in a sentence (same slot and same form)."""
    return [
        words_of(slot)[form::2] if slot in INFLECTED else words_of(slot)
        for slot in SLOTS
        for form in range(1 + (slot in INFLECTED))
    ]


def narrow_meanings(slot: str) -> list[Meaning]:
    """All meanings of a slot but the hypernyms."""
    rows = enumerate(LEXICON[slot])
    return [(row, cell) for row, cells in rows for cell in range(slot not in POLAR, len(cells))]
