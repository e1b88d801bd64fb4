"""python -m zoo.fidelity: what every method computes and where its numbers come from, as a page.

Writes docs/fidelity.md from the registry, the parts' docstrings and the recipes; `--check` says
whether the page is what they give. The same tables are what `--dry-run` prints of a suite.
"""

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from tabulate import tabulate

from zoo.errors import BenchmarkError, StaleError
from zoo.method import Method
from zoo.recipes import RECIPES, NoPenalty, Request, Value, Values, resolve
from zoo.registry import BUILT_IN, Entry, find_plugin, load_plugin, methods
from zoo.trial import write_whole

PAGE = Path(__file__).parent.parent / "docs" / "fidelity.md"
DENSITIES = (0.8, 0.5, 0.1, 0.03)
GROUPS = ("mnli", "qqp", "squad", "qnli", "sst2", "mrpc", "cola", "stsb", "rte")

CONFLICTS = (
    (
        "SMP: when the density reaches its target",
        "N = 7 epochs where many weights remain, 3,500 steps where few do (section 5.2)",
        "the other way round: 3,500 to 5,250 steps at 70 % and more (SQuAD 5,000), else until"
        " 30,000 steps before the end (SQuAD 5,000; at 3 % after 22,650 of 55,340 steps; SMP-S at"
        " 50 % without distillation after 5,000)",
        "released: the code; paper: the sentence. That the published tables come from the code's"
        " assignment is inferred: the 80 % table says 3,500 steps, and 7 epochs only follow from"
        " the code's rule for few weights",
    ),
    (
        "SMP: how lambda rises",
        "with the sparsity, until N (Eq. 6)",
        "over the whole run, on SQuAD at 3 % over half of it",
        "released: the code; paper: Eq. 6, so linear where the density is (RoBERTa)",
    ),
    (
        "R of SMP, soft movement and L0",
        "a sum over all scores",
        "the mean over matrices of the mean over entries",
        "the mean of means in both recipes: the published lambda belong to it. For BERT-base the"
        " sum is 85 million times larger, its gradient 42 (attention) to 170 (feed-forward) million"
        " times",
    ),
    (
        "SMP: the head",
        "products of the hidden state with the label words' embeddings (section 4.2)",
        "the whole pre-trained MLM head",
        "released: mlm_label_words; paper: label_words; a checkpoint without MLM head gets"
        " label_words, and the result and the page say so",
    ),
    (
        "SMP: label words of MNLI",
        "entailment Yes, neutral Maybe, contradiction No",
        "labels are sorted another way and the words are not: contradiction Yes, entailment Maybe,"
        " neutral No",
        "the paper's in both recipes; the code's is forced for the authors' mask files"
        " (zoo/released.py)",
    ),
    (
        "SMP: distillation",
        "KL(student || teacher), added to the loss (Eq. 7)",
        "0.5 of the loss and 0.5 of T^2 KL(teacher || student)",
        "the code's direction in both recipes; released mixes 0.5 and 0.5, paper adds",
    ),
    (
        "SMP: the teacher",
        "a fine-tuned teacher",
        "for GLUE the DynaBERT project's checkpoint, for SQuAD one of their own",
        "the dense trial of the same model, task and seed in both recipes",
    ),
    (
        "SMP: learning rate over time",
        "2e-2, no decay is mentioned",
        "linear decay to 0 without warm-up (the trainer's default)",
        "the code in both recipes",
    ),
    (
        "SMP: batch and epochs",
        "batch 64; 10 epochs on SQuAD, 60 on small tasks",
        "batch 32 on SQuAD and small tasks; 20 epochs on SQuAD at 3 %, 100 on RTE",
        "released: the code; paper: the text",
    ),
    (
        "SMP: MRPC at 80 %",
        "43 epochs to the target, which are 5,000 steps of batch 32",
        "3,500 steps, 30 epochs",
        "released: the code, with little confidence that the published run had it",
    ),
    (
        "SMP-S: temperature in Eq. 4",
        "none",
        "sigmoid(S / p) with p = 4 at 70 % and more, 3 or 4 in single scripts, else 1",
        "released: the code; paper: 1",
    ),
    (
        "SMP-S: a share above 1",
        "not mentioned",
        "the matrix is kept whole and the rest is lost",
        "the code in both recipes, the measured density is shown; a suite can give"
        " redistribute = True, which hands it on",
    ),
    (
        "SMP-G",
        "one ranking over all matrices at each step (section 6.1)",
        "cannot be run: its flag is never set",
        "the paper's, with the count and the floor of 0.5 % of the code's parts",
    ),
    (
        "SMP-T",
        "did not converge (Table 3); neither threshold nor schedule is given",
        "is evaluated with a threshold that leaves the floor alone",
        "ours, in both recipes: tau from 0 to 0.1 and lambda on one ramp, as in soft movement,"
        " evaluated with the masks it trained; what comes out is reported",
    ),
    (
        "SMP: RoBERTa's schedule",
        "linear",
        "its script does not ask for it",
        "linear in both recipes",
    ),
    (
        "SMP: small GLUE tasks below 70 %",
        "no such results are printed",
        "stop with an error: the end would lie before the start",
        "ours: the density reaches its target at 0.6 of the run",
    ),
    (
        "SMP: 30 % remaining weights",
        "a point of Figure 1",
        "the scripts' 0.30 sets 0.10",
        "0.30 means 30 %",
    ),
    (
        "SMP: which checkpoint is reported",
        "not mentioned",
        "the best on the evaluation set once the density is within 0.01 of its target",
        "the last step is ranked; the best evaluation at exactly the final density stands beside"
        " it",
    ),
    (
        "Movement: masked weights",
        "may be updated and come back (section 3)",
        "get no gradient",
        "the code",
    ),
    (
        "Movement: distillation",
        "the published runs are in the run log: 0.1 of the loss, 0.9 of the distillation",
        "0.5 and 0.5 by default",
        "the run log",
    ),
    (
        "Movement: learning rates on QQP",
        "the run log: 3e-6 for weights (movement, soft movement), 1e-2 for L0's scores; for"
        " magnitude 3e-5 by its column and 3e-6 by the experiment's name",
        "its example has SQuAD's 3e-5 and 1e-2",
        "the run log, for magnitude its column",
    ),
    (
        "Movement: L0 and soft-movement cells",
        "linear interpolations between two runs of one seed, at the measured or the nominal target",
        "runs at single penalties",
        "penalties log-linear between the log's runs; rows stand at what they measured",
    ),
    (
        "Movement: global rankings",
        "in the run log, magnitude on SQuAD and movement on SQuAD and MNLI",
        "ranks learned scores alone, every 25 steps",
        "magnitude_global and movement_global, ranked at every step",
    ),
    (
        "Adam's epsilon",
        "not mentioned",
        "the transformers of their time adds it before the second moment's bias correction",
        "torch's, after it; the two differ in the first steps where gradients are below 1e-6",
    ),
    (
        "CAP: reduction of the supervised term",
        "its text was not at hand",
        "divided by the number of positives twice",
        "the code's, which its weight of 10 belongs to. The usual mean with the weight divided by"
        " the mean number of positives is the same number",
    ),
    (
        "CAP: dropout and defaults",
        "its text was not at hand",
        "dropout is on while later snapshots are encoded; the anchor is read after the head's"
        " dropout; the defaults differ from the scripts",
        "the scripts' values; CAP-lite has no snapshots, encodes its banks without dropout and"
        " reads the anchor before it",
    ),
    (
        "Questions longer than 64 tokens",
        "not mentioned",
        "cut by Movement's code",
        "kept whole",
    ),
    (
        "Padding of spans",
        "not mentioned",
        "takes part in the softmax over positions",
        "hidden from it, so that a batch's width changes nothing",
    ),
)
"""(what, paper, released code, which side is taken where and why)."""


Setting = tuple[float, bool]
"""Density, and whether with distillation."""


def by_value(settings: Mapping[Setting, Values]) -> Iterator[tuple[str, str, str]]:
    """(name, value, source) over settings; what is another value in some of them says in which."""
    names = dict.fromkeys(name for values in settings.values() for name in values)
    for name in names:
        there = {key: values[name] for key, values in settings.items() if name in values}
        by_text: dict[str, list[Setting]] = {}
        for key, value in there.items():
            by_text.setdefault(text_of(value.value), []).append(key)
        texts = [
            " ".join(filter(None, (text, in_words(keys, settings))))
            for text, keys in by_text.items()
        ]
        sources = dict.fromkeys(value.source for value in there.values())
        yield name, "; ".join(texts), "; ".join(sources)


def in_words(keys: Collection[Setting], among: Collection[Setting]) -> str:
    """Which settings of all those are meant: '' for all, 'at 10, 3 % with distillation'."""
    if set(keys) == set(among):
        return ""
    words = []
    for distill in (False, True):
        densities = [density for density, flag in keys if flag == distill]
        every = [density for density, flag in among if flag == distill]
        if densities:
            which = ", ".join(f"{100 * density:g}" for density in densities)
            words.append((f"at {which} %" * (densities != every), distill))
    if len(words) == 2 and words[0][0] == words[1][0]:
        return words[0][0]
    flags = {False: "without distillation", True: "with distillation"}
    named = len({flag for _, flag in among}) == 2
    return ", and ".join(
        " ".join(filter(None, (text, flags[flag] * named))) for text, flag in words
    )


def text_of(value: Any) -> str:
    """A value for people: numbers with at most four digits."""
    if isinstance(value, list | tuple):
        return ", ".join(text_of(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def lines_of(settings: Mapping[Setting, Values]) -> list[str]:
    """Name, value and source as aligned lines of text."""
    rows, widths = list(by_value(settings)), [None, 60, 90]
    text = tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=widths)
    return [line.rstrip() for line in text.splitlines()]


# The page ---------------------------------------------------------------------------------------


def page() -> str:
    """The whole page as markdown."""
    parts = [
        "# What is computed, and where its numbers come from",
        "Generated by `python -m zoo.fidelity` from the registry, the docstrings of the parts and"
        " the recipes; a test compares. Two recipes: `released` (the default) is what the authors'"
        " public code and run logs do, `paper` their text taken literally; where only SMP's are in"
        " conflict, both are the same for the other methods. Moments are fractions of the run.",
        "## Where paper and released code disagree",
        _table(("What", "Paper", "Released code", "Taken here"), CONFLICTS),
    ]
    for entry in methods:
        parts += _of_method(entry)
    return "\n\n".join(parts) + "\n"


def _of_method(entry: Entry) -> list[str]:
    recipe = str(entry.facts.get("recipe", entry.name))
    title = entry.facts.get("label", entry.name)
    doc = "\n\n".join(" ".join(part.split()) for part in (entry.make.__doc__ or "").split("\n\n"))
    method = example(entry, recipe)
    parts = [f"## {entry.name}" + (f": {title}" if title != entry.name else ""), doc]
    parts.append(_table(("Part", "Where", "What it computes"), list(parts_of(method))))
    tables = {name: _values_table(recipe, name, entry) for name in RECIPES}
    first, second = (tables[name] for name in RECIPES)
    parts += [f"Recipe `{RECIPES[0]}`:", first]
    same = "the same." if second == first else ""
    parts += [f"Recipe `{RECIPES[1]}`: {same}".rstrip()] + ([] if same else [second])
    return parts


def example(entry: Entry, recipe: str) -> Method:
    """The method on MNLI at 10 %."""
    _, hyper = resolve(_request(recipe, RECIPES[0], "mnli", 0.1, False))
    return entry.make(0.1, **taken(entry, {n: v.value for n, v in hyper.items()}))


def taken(entry: Entry, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that a factory takes."""
    return {name: value for name, value in hyper.items() if entry.takes(name)}


def parts_of(method: Method) -> Iterator[tuple[str, str, str]]:
    """(part, where, docstring) of everything that a method is composed of."""
    yield "trains", *_described(method.trains)
    yield "start", *_described(method.start)
    yield f"head {method.head.name}", *_described(method.head.build)
    if method.score is not None:
        yield "score", *_described(method.score.read)
        if method.score.init is not None:
            yield "first score", *_described(method.score.init)
        yield "mask", *_described(method.mask)
        yield "level", *_described(method.level)
        gate = method.gate
        for name, part in (
            ("gate", gate.value),
            ("its slope", gate.slope),
            ("its noise", gate.draw),
        ):
            if part is not None:
                yield name, *_described(part)
        if gate.test is not None:
            yield "gate in evaluation", *_described(gate.test)
    for term in method.losses:
        yield f"loss, times {term.weight:g}", *_described(term.value)
    if method.penalty is not None:
        yield "penalty", *_described(method.penalty.value)
        yield "its gradient", *_described(method.penalty.gradient)
        yield "its weight", *_described(method.penalty.weight)


def _described(part: Any) -> tuple[str, str]:
    """Where a part is defined and its docstring on one line; settings of a value are shown."""
    shown = ""
    if isinstance(part, partial):
        shown = ", ".join(f"{name} = {text_of(value)}" for name, value in part.keywords.items())
        part = part.func
    elif not hasattr(part, "__code__"):
        shown = ", ".join(
            f"{name} = {text_of(value)}"
            for name, value in vars(part).items()
            if isinstance(value, int | float | str)
        )
        part = type(part)
    doc = " ".join((part.__doc__ or "").split())
    return f"`{part.__module__}.{part.__qualname__}`", doc + (f" Here {shown}." if shown else "")


def _values_table(recipe: str, side: str, entry: Entry) -> str:
    """Values that all tasks share, then those by task; sources as numbers under the tables."""
    prunes = entry.facts.get("prunes", True)
    keys = [(d, k) for d in DENSITIES for k in (False, True)] if prunes else [(1.0, False)]
    sources: dict[str, int] = {}
    columns: dict[str, dict[str, str]] = {}
    for task in GROUPS:
        settings = {key: _resolved(recipe, side, task, *key, entry) for key in keys}
        columns[task] = {
            name: f"{text} [{sources.setdefault(source, len(sources) + 1)}]"
            for name, text, source in by_value(settings)
        }
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    shared = [n for n in names if len({column.get(n) for column in columns.values()}) == 1]
    own = [name for name in names if name not in shared]
    together = [list(g) for _, g in groupby(GROUPS, lambda t: [columns[t].get(n) for n in own])]
    tables = [
        _table(("Value", "All tasks"), [(f"`{n}`", columns[GROUPS[0]][n]) for n in shared]),
        _table(
            ("Value", *(", ".join(tasks) for tasks in together)),
            [(f"`{n}`", *(columns[tasks[0]].get(n, "-") for tasks in together)) for n in own],
        ),
        "\n".join(f"{number}. {source}" for source, number in sources.items()),
    ]
    return "\n\n".join(tables)


def _resolved(
    recipe: str, side: str, task: str, density: float, distill: bool, entry: Entry
) -> Values:
    """All values of a setting; a penalty that no run gives is said to be none."""
    try:
        train, hyper = resolve(_request(recipe, side, task, density, distill))
    except NoPenalty:
        without = _request(recipe, side, task, density, distill, frozenset({"penalty"}))
        train, hyper = resolve(without)
        hyper = hyper | {"penalty": Value("none known", "outside the authors' runs: an error")}
    return train | {name: hyper[name] for name in taken(entry, hyper)}


def _request(
    recipe: str,
    side: str,
    task: str,
    density: float,
    distill: bool,
    given: frozenset[str] = frozenset(),
) -> Request:
    return Request(
        recipe=side,
        scale="base",
        model_type="bert",
        has_mlm_head=True,
        method=recipe,
        task=task,
        task_name=task,
        density=density,
        distill=distill,
        given=given,
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [[" ".join(cell.replace("|", "&#124;").split()) for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def check() -> None:
    """Raise StaleError if the page is not what the registry gives."""
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        raise StaleError(f"{PAGE.name} is not what the registry gives; run python -m zoo.fidelity")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zoo.fidelity", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    options = parser.parse_args(arguments)
    try:
        for name in BUILT_IN:
            load_plugin(find_plugin(name))
        if options.check:
            check()
        else:
            write_whole(PAGE, page().encode())
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
