"""The kinds of encoders that are supported, by `model_type` in config.json.

To support another kind, add a value to ARCHITECTURES and its cases to tests/test_architecture.py.
"""

from typing import Any

from torch import nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.inputs.architecture import Architecture, MaskedLmHead, SizeNames


def _bert_head(model: Any) -> MaskedLmHead:
    head = model.cls.predictions
    return MaskedLmHead(head.transform, head.decoder.weight, head.decoder.bias)


def _roberta_head(model: Any) -> MaskedLmHead:
    head = model.lm_head
    transform = nn.Sequential(head.dense, nn.GELU(), head.layer_norm)
    return MaskedLmHead(transform, head.decoder.weight, head.decoder.bias)


def _distilbert_head(model: Any) -> MaskedLmHead:
    transform = nn.Sequential(model.vocab_transform, model.activation, model.vocab_layer_norm)
    return MaskedLmHead(transform, model.vocab_projector.weight, model.vocab_projector.bias)


def _electra_head(model: Any) -> MaskedLmHead:
    decoder = model.generator_lm_head
    return MaskedLmHead(model.generator_predictions, decoder.weight, decoder.bias)


def _modernbert_head(model: Any) -> MaskedLmHead:
    rows, bias = model.decoder.weight, model.decoder.bias
    return MaskedLmHead(model.head, rows, rows.new_zeros(len(rows)) if bias is None else bias)


BERT_ROLES = {
    "Q": "attention.self.query",
    "K": "attention.self.key",
    "V": "attention.self.value",
    "O": "attention.output.dense",
    "U": "intermediate.dense",
    "D": "output.dense",
}
LIKE_BERT: dict[str, Any] = {
    "layers": "encoder.layer",
    "roles": BERT_ROLES,
    "norms": ("attention.output.LayerNorm", "output.LayerNorm"),
    "activation": "intermediate.intermediate_act_fn",
}
ROBERTA = Architecture(
    **LIKE_BERT,
    mlm_tensor="lm_head.dense.weight",
    mlm_head=_roberta_head,
    offset_positions=True,
)
ARCHITECTURES = {
    "bert": Architecture(
        **LIKE_BERT,
        mlm_tensor="cls.predictions.transform.dense.weight",
        mlm_head=_bert_head,
        pooler=True,
        last_layer="classifier",
    ),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), ROBERTA),
    "distilbert": Architecture(
        layers="transformer.layer",
        roles={
            "Q": "attention.q_lin",
            "K": "attention.k_lin",
            "V": "attention.v_lin",
            "O": "attention.out_lin",
            "U": "ffn.lin1",
            "D": "ffn.lin2",
        },
        norms=("sa_layer_norm", "output_layer_norm"),
        activation="ffn.activation",
        mlm_tensor="vocab_transform.weight",
        mlm_head=_distilbert_head,
        sizes=SizeNames("n_layers", "dim", "hidden_dim", "n_heads"),
        token_types=False,
        add_pooling_layer=False,
        classifier_activation=F.relu,
        first_dropout=(),
        dropout=("seq_classif_dropout",),
        span_dropout=("qa_dropout",),
        first_layer="pre_classifier",
        last_layer="classifier",
    ),
    "electra": Architecture(
        **LIKE_BERT,
        mlm_tensor="generator_predictions.dense.weight",
        mlm_head=_electra_head,
        embeddings=("embeddings.", "embeddings_project."),
        projection="embeddings_project",
        add_pooling_layer=False,
        classifier_activation=F.gelu,
    ),
    "mpnet": Architecture(
        layers="encoder.layer",
        roles=BERT_ROLES
        | {name: f"attention.attn.{name.lower()}" for name in ("Q", "K", "V", "O")},
        norms=("attention.LayerNorm", "output.LayerNorm"),
        mlm_tensor="lm_head.dense.weight",
        mlm_head=_roberta_head,
        embeddings=("embeddings.", "encoder.relative_attention_bias."),
        offset_positions=True,
        padding=1,
        token_types=False,
        packs=False,
        compacts=False,
    ),
    "deberta-v2": Architecture(
        layers="encoder.layer",
        roles=BERT_ROLES
        | {
            "Q": "attention.self.query_proj",
            "K": "attention.self.key_proj",
            "V": "attention.self.value_proj",
        },
        norms=LIKE_BERT["norms"],
        mlm_tensor="cls.predictions.transform.dense.weight",
        mlm_head=_bert_head,
        embeddings=("embeddings.", "encoder.rel_embeddings.", "encoder.LayerNorm."),
        projection="embeddings.embed_proj",
        type_rows=0,
        packs=False,
        compacts=False,
        add_pooling_layer=False,
        classifier_activation="pooler_hidden_act",
        first_dropout=("pooler_dropout",),
        dropout=("cls_dropout", "hidden_dropout_prob"),
        pretrained_head={"inner": "pooler.dense"},
        first_layer="pooler.dense",
        last_layer="classifier",
    ),
    "modernbert": Architecture(
        layers="layers",
        roles={"QKV": "attn.Wqkv", "O": "attn.Wo", "U": "mlp.Wi", "D": "mlp.Wo"},
        gated=True,
        mlm_tensor="decoder.bias",
        mlm_head=_modernbert_head,
        token_types=False,
        packs=False,
        compacts=False,
        add_pooling_layer=False,
        prediction_head=True,
        pretrained_head={"inner": "head.dense", "norm": "head.norm"},
        dropout=("classifier_dropout",),
    ),
}
"""By `model_type` in config.json."""
REFUSED = {
    "albert": "all its layers share one set of matrices, which a mask per layer cannot prune",
    "deberta": "its Q, K and V are computed without a linear layer of their own; deberta-v2 works",
}
"""Why some well-known kinds are not supported."""


def unsupported(kind: object) -> str:
    """One line about an encoder of another kind."""
    reason = REFUSED.get(kind, "") if isinstance(kind, str) else ""
    return f"{kind!r:.80}{f': {reason}' if reason else ''}; supported: {', '.join(ARCHITECTURES)}"


def architecture_of(encoder: Any) -> Architecture:
    """The architecture of a loaded encoder; raises ConfigError for an unsupported one, and for a
    model that has a head."""
    inner = getattr(encoder, "base_model", encoder)
    if inner is not encoder:
        raise ConfigError(
            f"a {type(encoder).__name__} has a head: pass its encoder, model.base_model"
        )
    kind = getattr(getattr(encoder, "config", None), "model_type", type(encoder).__name__)
    if kind not in ARCHITECTURES:
        raise ConfigError(f"an encoder cannot be masked that is of the kind {unsupported(kind)}")
    return ARCHITECTURES[kind]


def encoder_prefix(model: Any) -> str:
    """How the names of an encoder's tensors begin in a stock model; "" for an encoder itself."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def prunable(encoder: Any) -> dict[str, nn.Linear]:
    """The encoder's matrices that methods may prune, by name, in the model's order."""
    return dict(architecture_of(encoder).matrices(encoder))
