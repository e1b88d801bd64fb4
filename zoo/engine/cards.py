"""What stands in the README.md of a saved model."""

from collections.abc import Mapping
from typing import Any

from zoo.records.result import Result

PREDICT = {
    "AutoModelForSequenceClassification": "model(**inputs).logits",
    "AutoModelForQuestionAnswering": "model(**inputs)  # start_logits and end_logits",
    "AutoModelForTokenClassification": "model(**inputs).logits[:, 0]  # of the first token",
}
WHOLE = {
    True: "with the base model it is the whole model, since no weight was trained",
    False: "weights were trained too, so that the mask alone is not the model",
}
PRUNED = "; pruned weights are zeros in `model.safetensors`"
ZEROS = "Zeros make a dense product no faster and `model.safetensors` no smaller."
VALUE = "The logit is the value itself, in the unit of the task's labels."
SPANS = (
    "The logits at each token are those of the answer's start and of its end, in this order. The"
    " trial put the question first, cut long contexts into overlapping windows, and took the best"
    " pair of start and end over all windows: `tasks/squad.py` of the project."
)
OWN_HEAD = "model(**inputs).last_hidden_state  # then the head's own code, with head.safetensors"
LINEAR_HEAD = """from safetensors.torch import load_file
head = load_file("head.safetensors")
hidden = model(**inputs).last_hidden_state{first}
logits = hidden @ head["weight"].T + head["bias"]"""


def card(about: Mapping[str, Any], result: Result) -> str:
    """The card of a saved model: what it is, how to load it, what its numbers are."""
    trial, remaining = result.trial, result.remaining
    found = [f"{name} {value:.2f}" for name, value in result.metrics.items() if value is not None]
    kept, wider = 100 * remaining.density, 100 * remaining.encoder_density
    distilled = ", distilled" if trial.distill else ""
    spans = about["per_token"]
    lines = [
        f"# {trial.model}, {trial.method}, {trial.task}: {kept:.2f} % of the weights",
        "",
        f"{', '.join(found)} on the evaluation set (trial `{trial.id}`).",
        "",
        f"- base model: {trial.model}, sha256 `{trial.model_sha}`",
        f"- remaining weights: {kept:.4f} % of the encoder's matrices, {wider:.4f} % with biases",
        "  and LayerNorm" + PRUNED * about["has_mask"],
        f"- method `{trial.method}`, target {100 * trial.density:g} %, recipe `{trial.recipe}`,"
        f" seed {trial.seed}{distilled}",
        f"- inputs: at most {trial.train.max_length} tokens; longer ones were cut in the trial",
    ]
    if about["words"]:
        lines.append(f"- label words, in the order of the logits: {', '.join(about['words'])}")
    conditions = ", ".join(trial.train.conditions.words)
    lines += [f"- conditions: {conditions}"] if conditions else []
    lines += [f"- {note}" for note in about["notes"]]
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    lines.append(f"- made with {versions}")
    if about["has_mask"]:
        lines.append(f"- `mask.zmsk`: which weights remain; {WHOLE[about['mask_is_all']]}")
    lines += [
        "- `pruning.json`: all values of the trial, digests of masks and weights",
        "",
        f"```python\n{_code(about)}\n```",
        "",
        *([SPANS] if spans else []),
        *([VALUE] if not spans and not about["labels"] else []),
        *([ZEROS] if about["has_mask"] else []),
    ]
    return "\n".join(lines) + "\n"


def _code(about: Mapping[str, Any]) -> str:
    """How to load the model and read its answer, in stock transformers."""
    loader, end = about["loader"], ""
    predict, note = PREDICT.get(loader, OWN_HEAD), ""
    if about["linear_head"]:
        end = LINEAR_HEAD.format(first="" if about["per_token"] else "[:, 0]")
    if about["label_words"]:
        numbers = list(about["label_words"].values())
        note = f"words = {numbers}  # {', '.join(about['label_words'])}\n"
        at = ":, :" if about["per_token"] else ":, 0"
        predict = f"model(**inputs).logits[{at}, words]"
    names = ", ".join(about["labels"])
    classes = f"; classes: {names}" if "#" in predict else f"  # {names}"
    classes = classes if names else ""
    texts, pairs = '"a text"', '  # a pair: "a text", "a second one", ...'
    if about["per_token"]:
        texts, pairs = '"a question", "a context"', ""
    cut = f"truncation=True, max_length={about['trial']['train']['max_length']}"
    return (
        f"from transformers import AutoTokenizer, {loader}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        f'model = {loader}.from_pretrained(".").eval()\n{note}'
        f'inputs = tokenizer({texts}, {cut}, return_tensors="pt"){pairs}\n'
        + (end or f"logits = {predict}{classes}")
    )
