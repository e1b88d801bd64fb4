"""Weights as they leave the project: under stock names, with pruned entries exactly zero."""

from collections.abc import Mapping

from torch import Tensor, nn

from zoo.engine.masked import MaskedModel


def export(encoder: nn.Module, masked: MaskedModel) -> dict[str, Tensor]:
    """The encoder's state dict with the evaluation gate multiplied into W: stock names and shapes.

    >>> from transformers import BertConfig, BertModel
    >>> from methods.magnitude import magnitude
    >>> from zoo import MaskedModel, export
    >>> encoder = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16))
    >>> masked = MaskedModel(encoder, magnitude(0.5, start=0.0, stop=1.0))
    >>> masked.refresh(0.5)
    >>> int((export(encoder, masked)["encoder.layer.0.output.dense.weight"] != 0).sum())
    64
    """
    state = {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    for name, gate in masked.test_gates().items():
        state[f"{name}.weight"] *= gate
    for name, layer in masked.layers.items():
        if layer.bias_gate is not None:
            state[f"{name}.bias"] *= layer.bias_gate.detach()
    return state


def distinct(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict; those that share their storage once, under the first name."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            found[name] = tensor
        seen.add(tensor.data_ptr())
    return found
