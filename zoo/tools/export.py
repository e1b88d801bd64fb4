"""Write saved models in other forms.

    python -m zoo.tools.export results/high_sparsity/TRIAL.json
    python -m zoo.tools.export results/high_sparsity/models/TRIAL --to compact,packed --least 10
    python -m zoo.tools.export --unpack FOLDER --model bert-base-uncased --out stock

Each form becomes a folder beside the files of the model, or under --out, written whole or not at
all, and is loaded again and compared with the model before. For a model that was not kept, the
command is printed that makes it.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from zoo.ends import command, leave
from zoo.engine.compact import compact, narrowed, without_thin_rows
from zoo.engine.compact_files import load_compact, save_compact
from zoo.engine.packed import pack, unpack
from zoo.engine.save import MASK_FILE
from zoo.errors import ConfigError, TrialError, unknown
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.kinds import architecture_of
from zoo.inputs.tokeniser import load_tokenizer
from zoo.records.mask_file import bounds
from zoo.records.storage import whole_folder
from zoo.tools.compared import CLOSE, CLOSE_ONNX, check_equal, difference
from zoo.tools.kept import Kept, base_of, folders_of, load_kept
from zoo.tools.onnx_file import INSTALL, OnnxModel, has_onnx, save_onnx

ROUGH = 1e-2
"""Largest difference of outputs, over their largest, of values in float16."""
BESIDE = (
    "pruning.json",
    "head.safetensors",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
)


@dataclass(frozen=True)
class Written:
    """A form in a folder, loaded again: the model; the largest difference that is rounding, None if
    the form is another model; what else there is to say."""

    model: Any
    close: float | None
    note: str = ""


def write_compact(kept: Kept, options: argparse.Namespace, folder: Path) -> Written:
    """The smaller model, with `--least` without thin rows."""
    inner, state = kept.model.base_model, None
    if options.least:
        architecture = architecture_of(inner)
        state = without_thin_rows(inner.state_dict(), architecture, options.least)
    small = compact(kept.model, state)
    save_compact(small, kept.reading.loader, folder, least=options.least)
    return Written(load_compact(folder), None if options.least else CLOSE)


def write_narrow(kept: Kept, options: argparse.Namespace, folder: Path) -> Written:
    """A stock model with a smaller intermediate size."""
    small = narrowed(kept.model)
    small.save_pretrained(folder)
    return Written(type(small).from_pretrained(folder).eval(), CLOSE)


def write_packed(kept: Kept, options: argparse.Namespace, folder: Path) -> Written:
    """The mask, and the values that training changed."""
    checkpoint = base_of(kept, options.model)
    masks = pack(kept.model, kept.reading.loader, checkpoint, folder, half=options.half)
    note = ""
    if masks:
        size, (by_matrix, by_row) = (folder / MASK_FILE).stat().st_size, bounds(masks)
        note = (
            f"mask {size:,} bytes; its entropy is {by_matrix:,.0f} with a density per matrix,"
            f" {by_row:,.0f} with one per row"
        )
    again = unpack(folder, checkpoint)
    if not options.half:
        check_equal(kept.model, again)
    return Written(again, ROUGH if options.half else CLOSE, note)


def write_onnx(
    kept: Kept, options: argparse.Namespace, folder: Path, *, small: bool = False
) -> Written:
    """The stock or the compact model for onnxruntime."""
    model = compact(kept.model) if small else kept.model
    return Written(OnnxModel(save_onnx(model, folder)), CLOSE_ONNX)


WRITERS: Mapping[str, Callable[[Kept, argparse.Namespace, Path], Written]] = {
    "compact": write_compact,
    "narrow": write_narrow,
    "packed": write_packed,
    "onnx": write_onnx,
    "onnx_compact": partial(write_onnx, small=True),
}
"""What writes each form."""


def export(kept: Kept, options: argparse.Namespace, name: str) -> list[str]:
    """Write a form of a saved model; returns a line of the table."""
    own = name
    own += f"_{options.least}" if name == "compact" and options.least else ""
    own += "_half" if name == "packed" and options.half else ""
    target = (options.out / kept.folder.name if options.out else kept.folder) / own
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as folder:
        written = WRITERS[name](kept, options, folder)
        worst = difference(kept.model, written.model)
        if written.close is not None and not worst <= written.close:
            raise TrialError(f"{own} of {kept.folder.name} differs by {worst:.2g}: not written")
        size = sum(file.stat().st_size for file in folder.iterdir())
        for file in (file for text in BESIDE for file in kept.folder.glob(text)):
            shutil.copy(file, folder)
    whole = (kept.folder / "model.safetensors").stat().st_size
    exact = "another model" if written.close is None else f"{worst:.1e}"
    shares = [f"{size / 1e6:.3f}", f"{100 * size / whole:.1f}"]
    return [str(target), *shares, exact, written.note]


def restore(options: argparse.Namespace) -> None:
    """Write the stock model of a packed one."""
    if not (options.model and options.out):
        raise ConfigError("--unpack needs --model, the base model, and --out, a new folder")
    if options.out.exists():
        raise ConfigError(f"{options.out} exists already; give a new folder")
    checkpoint = find_checkpoint(options.model)
    model = unpack(options.unpack, checkpoint)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(options.out) as folder:
        model.save_pretrained(folder)
        load_tokenizer(checkpoint).save_pretrained(folder)
    print(options.out)


def names(text: str) -> list[str]:
    """Names of forms."""
    found = [name.strip() for name in text.split(",")]
    for name in found:
        if name not in WRITERS:
            raise argparse.ArgumentTypeError(unknown("form", name, WRITERS))
    return found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m zoo.tools.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("models", nargs="*", help="results, saved models, or folders of suites")
    made.add_argument("--to", type=names, default=["compact", "packed"], help=", ".join(WRITERS))
    least = "compact without rows that have fewer weights than this, which is not exact"
    made.add_argument("--least", type=int, default=0, help=least)
    made.add_argument("--half", action="store_true", help="packed values in float16, not exact")
    made.add_argument("--model", help="the base model, if it is not the scale's")
    made.add_argument("--out", type=Path, help="where forms are written, not beside the model")
    made.add_argument("--unpack", type=Path, help="a packed model, to make a stock one of it")
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    if options.unpack:
        restore(options)
        return 0
    if not options.models:
        raise ConfigError("give results, saved models, or the folder of a suite")
    if options.least < 0:
        raise ConfigError(f"--least must be at least 0, got {options.least}")
    if any(name.startswith("onnx") for name in options.to) and not has_onnx():
        raise ConfigError(INSTALL)
    rows = []
    for folder in folders_of(options.models):
        kept = load_kept(folder)
        rows += [export(kept, options, name) for name in options.to]
    header = ["Written", "MB", "% of stock", "Largest difference", "Note"]
    align = ["left", *["right"] * 3, "left"]
    print(tabulate(rows, header, "pipe", disable_numparse=True, colalign=align))
    return 0


if __name__ == "__main__":
    leave(main())
