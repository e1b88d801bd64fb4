"""python -m tasks.laboratory.pretrain: make the laboratory's model again, a tiny BERT pre-trained
on masked words.

The texts come from `examples.pretraining_texts`, each batch from a single kind. In half of them
the key words (the connective, the answer, the verdicts) are masked and hardly any others, so that
the relation of the two segments can be made out; in the other half the key words are given and
other words are corrupted as in BERT: masked, replaced, or left alone but asked for. A replacement
fits grammatically, so that only the meaning of the other segment gives it away. The first steps
see relations only: they are learnt much faster before the other kinds than beside them.

One thread and fixed seeds make a run repeatable on one machine with one version of PyTorch. Other
machines round differently, so the checkpoint that ships with the project is the laboratory's.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import time
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from tasks.laboratory import examples, lexicon
from zoo.ends import command, leave

WORDS = lexicon.vocabulary()
IDS = {word: i for i, word in enumerate(WORDS)}
PAD, MASK, FIRST_WORD = IDS["[PAD]"], IDS["[MASK]"], len(lexicon.SPECIAL_TOKENS)

SEED = 1
STEPS, RELATION_STEPS, WARMUP = 18_000, 5_000, 500
RATE = 2e-3
BATCH = {"relation": 64, "answer": 32, "verdict": 32}
ASKED = 0.5
"""Share of texts in which the key words are masked."""
CORRUPTED = {"relation": (0.03, 0.5), "answer": (0.1, 0.1), "verdict": (0.1, 0.1)}
"""Share of other words that are asked for, in the first and the second segment."""
CORRUPTED_BESIDE_KEYS = 0.04


def configuration() -> BertConfig:
    """3 layers of width 64: 98,304 prunable weights. Without dropout, here and in fine-tuning: text
    is endless here, and a few hundred steps there pass over the training set once."""
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.05,
        pad_token_id=PAD,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def pad(texts: list[examples.Text]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, token types and which tokens are key words, (B, L) each, padded to the longest."""
    rows, types, keys = [], [], []
    for text in texts:
        rows.append(["[CLS]", *text.first, "[SEP]", *text.second, "[SEP]"])
        types.append([0] * (len(text.first) + 2) + [1] * (len(text.second) + 1))
        keys.append({place + 1 + (place >= len(text.first)) for place in text.key})
    width = max(map(len, rows))
    ids = [[IDS[word] for word in row] + [PAD] * (width - len(row)) for row in rows]
    segments = [row + [0] * (width - len(row)) for row in types]
    is_key = [[place in places for place in range(width)] for places in keys]
    return torch.tensor(ids), torch.tensor(segments), torch.tensor(is_key)


def replacements() -> tuple[Tensor, Tensor]:
    """Per word its possible replacements, padded to a table, and how many they are."""
    groups = {word: group for group in lexicon.similar_words() for word in group}
    fitting = [[IDS[other] for other in groups.get(word, [word])] for word in WORDS]
    width = max(map(len, fitting))
    table = [row + [PAD] * (width - len(row)) for row in fitting]
    return torch.tensor(table), torch.tensor([len(row) for row in fitting])


def corrupt(
    ids: Tensor, types: Tensor, key: Tensor, kind: str, table: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """The corrupted ids and which positions are to be predicted, (B, L) each."""
    asked = torch.rand(len(ids), 1) < ASKED
    first, second = CORRUPTED[kind]
    rate = torch.where(asked, CORRUPTED_BESIDE_KEYS, torch.where(types == 1, second, first))
    chosen = (ids >= FIRST_WORD) & torch.where(key, asked, torch.rand(ids.shape) < rate)
    fate = torch.rand(ids.shape)
    masked = chosen & (key | (fate < 1 / 3))
    replaced = chosen & ~key & (fate > 2 / 3)
    other = table[ids, (torch.rand(ids.shape) * counts[ids]).long()]
    return torch.where(replaced, other, ids).masked_fill(masked, MASK), chosen


def pretrain(seed: int, steps: int) -> BertForMaskedLM:
    """A model trained from random weights; prints how it goes."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = BertForMaskedLM(configuration())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * (1 - step / steps)
    )
    streams = {kind: examples.pretraining_texts(kind, seed) for kind in examples.TEXT_KINDS}
    table, counts = replacements()
    found: dict[str, list[float]] = {kind: [] for kind in streams}
    began = time.perf_counter()
    for step in range(steps):
        kind = examples.TEXT_KINDS[step % 3 if step >= RELATION_STEPS else 0]
        ids, types, key = pad(list(islice(streams[kind], BATCH[kind])))
        corrupted, chosen = corrupt(ids, types, key, kind, table, counts)
        hidden = model.bert(
            corrupted, attention_mask=(ids != PAD).long(), token_type_ids=types
        ).last_hidden_state
        logits, truth = model.cls(hidden[chosen]), ids[chosen]
        loss = functional.cross_entropy(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        right = (logits.argmax(-1) == truth)[key[chosen]]
        found[kind].append(right.float().mean().item())
        if (step + 1) % 500 == 0:
            recent = (
                f"{kind} {mean_of_known(values[-100:]):.1%}"
                for kind, values in found.items()
                if values
            )
            seconds = time.perf_counter() - began
            print(f"step {step + 1:6,} {seconds:5.0f} s  key words: {', '.join(recent)}")
    return model


def mean_of_known(values: list[float]) -> float:
    """The mean of the values that are not nan."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def save(model: BertForMaskedLM, folder: Path) -> None:
    """Write a Hugging Face checkpoint: config.json, model.safetensors, vocab.txt, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    BertTokenizer(vocab=str(vocabulary)).save_pretrained(folder)


@command
def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.laboratory.pretrain", description=__doc__
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    save(pretrain(options.seed, options.steps), options.output)
    return 0


if __name__ == "__main__":
    leave(main())
