"""Kinds of units: layers, sub-layers, heads, their dimensions, neurons, blocks, rows and columns.
Each is a function (matrices, attention heads of a layer) -> groups by name, or makes one, as
`blocks(32)` does."""

from collections.abc import Sequence
from functools import partial

from zoo.errors import ConfigError
from zoo.parts.masks import layer_of
from zoo.parts.units import Matrix, Part, UnitGroup, Units, check_size


def _layers(matrices: Sequence[Matrix]) -> dict[str, dict[str, Matrix]]:
    """The matrices of each layer, by role."""
    found: dict[str, dict[str, Matrix]] = {}
    for matrix in matrices:
        found.setdefault(layer_of(matrix.name), {})[matrix.role] = matrix
    return found


PROJECTIONS = {"Q": 1, "K": 1, "V": 1, "QKV": 3}
"""How many of an attention head's projections a matrix of this role holds."""


def _in_rows(matrix: Matrix, rows: int, copies: int = 1) -> Part:
    return Part(matrix.name, matrix.shape, rows, matrix.shape[1], copies, biased=True)


def _in_columns(matrix: Matrix, columns: int) -> Part:
    return Part(matrix.name, matrix.shape, matrix.shape[0], columns)


def attention_heads(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is an attention head: its rows of Q, K and V and its columns of O.

    >>> from zoo import Matrix, attention_heads
    >>> square = [Matrix(f"layer.0.{role}", role, (8, 8)) for role in "QKVO"]
    >>> attention_heads(square, 2)["layer.0.heads"].shape
    (2,)
    """
    found = {}
    for layer, own in _layers(matrices).items():
        size = own["O"].shape[1] // heads
        reading = [
            _in_rows(own[role], size, copies) for role, copies in PROJECTIONS.items() if role in own
        ]
        found[f"{layer}.heads"] = UnitGroup((heads,), (*reading, _in_columns(own["O"], size)))
    return found


def _whole(matrix: Matrix, *, closes: bool) -> Part:
    return Part(matrix.name, matrix.shape, *matrix.shape, biased=True, closes=closes)


def attention_sublayers(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is the attention of a layer with all its biases: without it what enters the layer goes
    on to the feed-forward sub-layer, through the LayerNorm between them where there is one.

    >>> from zoo import Matrix, attention_sublayers
    >>> square = [Matrix(f"layer.0.{role}", role, (8, 8)) for role in "QKVO"]
    >>> [part.name for part in attention_sublayers(square, 2)["layer.0.attention"].parts]
    ['layer.0.Q', 'layer.0.K', 'layer.0.V', 'layer.0.O']
    """
    return _sublayers(matrices, "attention", (*PROJECTIONS, "O"))


def feed_forward_sublayers(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is the feed-forward sub-layer of a layer with all its biases (Liang et al. 2021).

    >>> from zoo import Matrix, feed_forward_sublayers
    >>> both = [Matrix("layer.0.U", "U", (16, 4)), Matrix("layer.0.D", "D", (4, 16))]
    >>> feed_forward_sublayers(both, 2)["layer.0.feed_forward"].shape
    (1,)
    """
    return _sublayers(matrices, "feed_forward", ("U", "D"))


def whole_layers(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is a layer: both of its sub-layers with all biases. LayerNorms of a layer that goes
    stay; `Method.layers` takes out layers with them. Each is a group of its own, of which functions
    such as `topk_local` keep at least one unit: `topk_in_type` ranks all layers together.

    >>> from zoo import Matrix, whole_layers
    >>> shapes = {"Q": (4, 4), "K": (4, 4), "V": (4, 4), "O": (4, 4), "U": (8, 4), "D": (4, 8)}
    >>> groups = whole_layers([Matrix(f"layer.0.{r}", r, s) for r, s in shapes.items()], 2)
    >>> {name: len(group.parts) for name, group in groups.items()}
    {'layer.0.whole': 6}
    """
    return _sublayers(matrices, "whole", (*PROJECTIONS, "O", "U", "D"))


def _sublayers(matrices: Sequence[Matrix], name: str, roles: Sequence[str]) -> dict[str, UnitGroup]:
    """One unit in each layer, all matrices of these roles; biases of what it puts out go too."""
    found = {}
    for layer, own in _layers(matrices).items():
        held = [own[role] for role in roles if role in own]
        parts = tuple(_whole(matrix, closes=matrix.role in ("O", "D")) for matrix in held)
        found[f"{layer}.{name}"] = UnitGroup((1,), parts)
    return found


def heads_and_feed_forward(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """Units are attention heads, and whole feed-forward sub-layers (Liang et al. 2021).

    >>> from zoo import Matrix, heads_and_feed_forward
    >>> shapes = {"Q": (4, 4), "K": (4, 4), "V": (4, 4), "O": (4, 4), "U": (8, 4), "D": (4, 8)}
    >>> [*heads_and_feed_forward([Matrix(f"layer.0.{r}", r, s) for r, s in shapes.items()], 2)]
    ['layer.0.heads', 'layer.0.feed_forward']
    """
    return attention_heads(matrices, heads) | feed_forward_sublayers(matrices, heads)


def head_dimensions(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is one dimension of an attention head: a row of K and of Q, or a row of V and its
    column of O, in this order. Scores are (heads, dimensions of a head). Raises ConfigError for an
    encoder that holds Q, K and V in one matrix.

    >>> from zoo import Matrix, head_dimensions
    >>> square = [Matrix(f"layer.0.{role}", role, (8, 8)) for role in "QKVO"]
    >>> {name: group.shape for name, group in head_dimensions(square, 2).items()}
    {'layer.0.query_key': (2, 4), 'layer.0.value_output': (2, 4)}
    """
    found = {}
    for layer, own in _layers(matrices).items():
        if "QKV" in own:
            raise ConfigError(
                f"{own['QKV'].name} holds Q, K and V, whose dimensions cannot be pruned apart:"
                " choose attention heads as units, or another encoder"
            )
        for name, first, second in (("query_key", "K", "Q"), ("value_output", "V", "O")):
            last = _in_columns(own["O"], 1) if second == "O" else _in_rows(own[second], 1)
            shape = heads, own[first].shape[0] // heads
            found[f"{layer}.{name}"] = UnitGroup(shape, (_in_rows(own[first], 1), last))
    return found


def neurons(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is a neuron of a feed-forward sub-layer: its row of U, with that of the gate where U
    holds one, and its column of D.

    >>> from zoo import Matrix, neurons
    >>> both = [Matrix("layer.0.U", "U", (16, 4)), Matrix("layer.0.D", "D", (4, 16))]
    >>> neurons(both, 2)["layer.0.neurons"].shape
    (16,)
    """
    found = {}
    for layer, own in _layers(matrices).items():
        many = own["D"].shape[1]
        up = _in_rows(own["U"], 1, own["U"].shape[0] // many)
        found[f"{layer}.neurons"] = UnitGroup((many,), (up, _in_columns(own["D"], 1)))
    return found


def heads_and_neurons(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """Units are attention heads, and neurons of feed-forward sub-layers.

    >>> from zoo import Matrix, heads_and_neurons
    >>> shapes = {"Q": (4, 4), "K": (4, 4), "V": (4, 4), "O": (4, 4), "U": (8, 4), "D": (4, 8)}
    >>> [*heads_and_neurons([Matrix(f"layer.0.{r}", r, s) for r, s in shapes.items()], 2)]
    ['layer.0.heads', 'layer.0.neurons']
    """
    return attention_heads(matrices, heads) | neurons(matrices, heads)


def dimensions_and_neurons(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """Units are dimensions of attention heads, and neurons of feed-forward sub-layers.

    >>> from zoo import Matrix, dimensions_and_neurons
    >>> shapes = {"Q": (4, 4), "K": (4, 4), "V": (4, 4), "O": (4, 4), "U": (8, 4), "D": (4, 8)}
    >>> [*dimensions_and_neurons([Matrix(f"layer.0.{r}", r, s) for r, s in shapes.items()], 2)]
    ['layer.0.query_key', 'layer.0.value_output', 'layer.0.neurons']
    """
    return head_dimensions(matrices, heads) | neurons(matrices, heads)


def _blocks(size: int, matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """Blocks of `size` x `size` weights of every matrix."""
    check_size(size)
    found = {}
    for matrix in matrices:
        part = Part(matrix.name, matrix.shape, size, size)
        found[matrix.name] = UnitGroup(part.grid, (part,))
    return found


def _blocks_and_neurons(
    size: int | None, matrices: Sequence[Matrix], heads: int
) -> dict[str, UnitGroup]:
    """Blocks of `size` x `size` weights in attention (Lagunas et al. 2021), and neurons."""
    attention = [m for m in matrices if m.role not in ("U", "D")]
    width = next(m.shape[1] for m in attention if m.role == "O")
    own = max(width // heads // 2, 1) if size is None else size
    return _blocks(own, attention, heads) | neurons(matrices, heads)


def blocks(size: int) -> Units:
    """A unit is a block of `size` x `size` weights of a matrix.

    >>> from zoo import Matrix, blocks
    >>> blocks(2)([Matrix("layer.0.Q", "Q", (8, 4))], 1)["layer.0.Q"].shape
    (4, 2)
    """
    return partial(_blocks, size)


def blocks_and_neurons(size: int | None = None) -> Units:
    """Units are blocks of `size` x `size` weights in attention, and neurons of feed-forward
    sub-layers (the hybrid of Lagunas et al. 2021, nn_pruning). Without a size it is half the
    dimensions of an attention head, which is nn_pruning's 32 in BERT.

    >>> from zoo import Matrix, blocks_and_neurons
    >>> shapes = {"Q": (4, 4), "K": (4, 4), "V": (4, 4), "O": (4, 4), "U": (8, 4), "D": (4, 8)}
    >>> groups = blocks_and_neurons(2)([Matrix(f"layer.0.{r}", r, s) for r, s in shapes.items()], 2)
    >>> {name: group.shape for name, group in groups.items()}["layer.0.neurons"]
    (8,)
    """
    return partial(_blocks_and_neurons, size)


def whole_rows(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is a row of a matrix, the weights of one output. A row without weights still outputs
    its bias.

    >>> from zoo import Matrix, whole_rows
    >>> whole_rows([Matrix("layer.0.Q", "Q", (8, 4))], 1)["layer.0.Q"].shape
    (8,)
    """
    return {m.name: UnitGroup((m.shape[0],), (_in_rows(m, 1),)) for m in matrices}


def whole_columns(matrices: Sequence[Matrix], heads: int) -> dict[str, UnitGroup]:
    """A unit is a column of a matrix, the weights of one input.

    >>> from zoo import Matrix, whole_columns
    >>> whole_columns([Matrix("layer.0.Q", "Q", (8, 4))], 1)["layer.0.Q"].shape
    (4,)
    """
    return {m.name: UnitGroup((m.shape[1],), (_in_columns(m, 1),)) for m in matrices}
