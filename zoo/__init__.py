"""The parts of pruning methods, and the engine that trains and measures them.

This is the front door: a method, a task, a suite or a training loop of your own needs nothing else
of `zoo`. Names are loaded when they are first used, so that `zoo.records`, which the leaderboard
reads, needs no torch.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What a method is
    from zoo.parts.method import FromDense as FromDense
    from zoo.parts.method import Method as Method
    from zoo.parts.method import all_but_embeddings as all_but_embeddings
    from zoo.parts.method import at_density as at_density
    from zoo.parts.method import everything as everything
    from zoo.parts.method import from_random_weights as from_random_weights
    from zoo.parts.method import nothing as nothing
    from zoo.parts.method import pretrained as pretrained
    from zoo.parts.method import regrow as regrow
    from zoo.parts.method import stay_zero as stay_zero
    from zoo.parts.method import with_distillation as with_distillation
    from zoo.parts.method import zero_when_masked as zero_when_masked
    from zoo.inputs.architecture import Parameter as Parameter

    # Scores
    from zoo.parts.scores import Moment as Moment
    from zoo.parts.scores import Score as Score
    from zoo.parts.scores import learned as learned
    from zoo.parts.scores import kaiming as kaiming
    from zoo.parts.scores import learned_from as learned_from
    from zoo.parts.scores import learned_log_odds as learned_log_odds
    from zoo.parts.scores import log_odds_of_nine_tenths as log_odds_of_nine_tenths
    from zoo.parts.scores import magnitude as magnitude
    from zoo.parts.scores import magnitude_of as magnitude_of
    from zoo.parts.scores import noise as noise
    from zoo.parts.scores import norm as norm
    from zoo.parts.scores import stored as stored
    from zoo.parts.scores import total as total
    from zoo.parts.scores import uniform_noise as uniform_noise
    from zoo.parts.scores import zeros as zeros

    # Masks, and exact selection
    from zoo.parts.masks import MaskFn as MaskFn
    from zoo.parts.masks import above_threshold as above_threshold
    from zoo.parts.masks import allot as allot
    from zoo.parts.masks import count as count
    from zoo.parts.masks import matrix_type as matrix_type
    from zoo.parts.masks import nonzero as nonzero
    from zoo.parts.masks import open_gates as open_gates
    from zoo.parts.masks import topk_by_type as topk_by_type
    from zoo.parts.masks import topk_global as topk_global
    from zoo.parts.masks import topk_local as topk_local
    from zoo.parts.selection import keep as keep
    from zoo.parts.selection import keep_among as keep_among
    from zoo.parts.selection import keep_each as keep_each

    # Patterns, and how matrices share a density
    from zoo.parts.allocation import Allocated as Allocated
    from zoo.parts.allocation import Owl as Owl
    from zoo.parts.allocation import allocation_of as allocation_of
    from zoo.parts.allocation import eq4 as eq4
    from zoo.parts.allocation import erk as erk
    from zoo.parts.allocation import shared_by_outliers as shared_by_outliers
    from zoo.parts.allocation import uniform as uniform
    from zoo.parts.allocation import with_allocation as with_allocation
    from zoo.parts.patterns import Blocks as Blocks
    from zoo.parts.patterns import NofM as NofM
    from zoo.parts.patterns import keep_in_rows as keep_in_rows
    from zoo.parts.patterns import pattern_of as pattern_of
    from zoo.parts.patterns import topk_by_row as topk_by_row
    from zoo.parts.patterns import topk_in_all as topk_in_all
    from zoo.parts.patterns import topk_in_type as topk_in_type
    from zoo.parts.patterns import with_pattern as with_pattern

    # Units, and layers
    from zoo.parts.depth import KeepLayers as KeepLayers
    from zoo.parts.depth import LayersByData as LayersByData
    from zoo.parts.depth import alternate as alternate
    from zoo.parts.depth import bottom as bottom
    from zoo.parts.depth import even as even
    from zoo.parts.depth import first_token as first_token
    from zoo.parts.depth import real_tokens as real_tokens
    from zoo.parts.depth import symmetric as symmetric
    from zoo.parts.depth import top as top
    from zoo.parts.depth import first_half_of_layers as first_half_of_layers
    from zoo.parts.depth import keep_layers as keep_layers
    from zoo.parts.units import UnitCost as UnitCost
    from zoo.parts.units import UnitGroup as UnitGroup
    from zoo.parts.units import Held as Held
    from zoo.parts.units import Matrix as Matrix
    from zoo.parts.units import Part as Part
    from zoo.parts.unit_kinds import attention_heads as attention_heads
    from zoo.parts.unit_kinds import attention_sublayers as attention_sublayers
    from zoo.parts.unit_kinds import blocks as blocks
    from zoo.parts.unit_kinds import blocks_and_neurons as blocks_and_neurons
    from zoo.parts.unit_kinds import dimensions_and_neurons as dimensions_and_neurons
    from zoo.parts.unit_kinds import feed_forward_sublayers as feed_forward_sublayers
    from zoo.parts.unit_kinds import head_dimensions as head_dimensions
    from zoo.parts.unit_kinds import heads_and_feed_forward as heads_and_feed_forward
    from zoo.parts.unit_kinds import heads_and_neurons as heads_and_neurons
    from zoo.parts.unit_kinds import neurons as neurons
    from zoo.parts.unit_kinds import whole_columns as whole_columns
    from zoo.parts.unit_kinds import whole_layers as whole_layers
    from zoo.parts.unit_kinds import whole_rows as whole_rows

    # Calibration
    from zoo.parts.calibration import Calibration as Calibration
    from zoo.parts.calibration import Choice as Choice
    from zoo.parts.calibration import GateCalibration as GateCalibration
    from zoo.parts.calibration import GradientCalibration as GradientCalibration
    from zoo.parts.calibration import Rescaling as Rescaling
    from zoo.parts.calibration import WeightCalibration as WeightCalibration
    from zoo.parts.calibration import products as products
    from zoo.parts.calibration import squares as squares

    # Gates
    from zoo.parts.gates import Gate as Gate
    from zoo.parts.gates import draw_logistic as draw_logistic
    from zoo.parts.gates import hard as hard
    from zoo.parts.gates import hard_concrete as hard_concrete
    from zoo.parts.gates import hard_concrete_mean as hard_concrete_mean
    from zoo.parts.gates import hard_concrete_sample as hard_concrete_sample
    from zoo.parts.gates import hard_concrete_slope as hard_concrete_slope
    from zoo.parts.gates import identity_slope as identity_slope
    from zoo.parts.gates import mask_itself as mask_itself
    from zoo.parts.gates import permuted as permuted
    from zoo.parts.gates import permuted_in_evaluation as permuted_in_evaluation
    from zoo.parts.gates import straight_through as straight_through

    # Schedules
    from zoo.parts.schedules import Constant as Constant
    from zoo.parts.schedules import Staircase as Staircase
    from zoo.parts.schedules import Cycles as Cycles
    from zoo.parts.schedules import Ramp as Ramp
    from zoo.parts.schedules import at_once as at_once
    from zoo.parts.schedules import every_so_often as every_so_often
    from zoo.parts.schedules import never as never
    from zoo.parts.schedules import rate as rate
    from zoo.parts.schedules import stepwise as stepwise

    # Losses, penalties, heads, optimisers
    from zoo.parts.losses import Bank as Bank
    from zoo.parts.losses import Contrast as Contrast
    from zoo.parts.losses import Distillation as Distillation
    from zoo.parts.losses import LossTerm as LossTerm
    from zoo.parts.losses import Step as Step
    from zoo.parts.losses import same_class as same_class
    from zoo.parts.losses import same_example as same_example
    from zoo.parts.losses import task_loss as task_loss
    from zoo.parts.penalties import Penalty as Penalty
    from zoo.parts.penalties import SigmoidGradient as SigmoidGradient
    from zoo.parts.penalties import expected_l0 as expected_l0
    from zoo.parts.penalties import expected_l0_gradient as expected_l0_gradient
    from zoo.parts.penalties import mean_sigmoid as mean_sigmoid
    from zoo.parts.penalties import mean_sigmoid_gradient as mean_sigmoid_gradient
    from zoo.parts.heads import Head as Head
    from zoo.parts.heads import label_words as label_words
    from zoo.parts.heads import mlm_label_words as mlm_label_words
    from zoo.parts.heads import trained as trained
    from zoo.parts.heads import Network as Network
    from zoo.parts.optimisers import Group as Group
    from zoo.parts.optimisers import adamax as adamax
    from zoo.parts.optimisers import adamw as adamw
    from zoo.records.trial import Training as Training

    # Recipes
    from zoo.parts.recipes import OURS as OURS
    from zoo.parts.recipes import Request as Request
    from zoo.parts.recipes import Value as Value
    from zoo.parts.recipes import Values as Values
    from zoo.parts.recipes import share as share
    from zoo.parts.ranges import Among as Among
    from zoo.parts.ranges import Times as Times

    # What a task is
    from zoo.inputs.batches import Batch as Batch
    from zoo.inputs.batches import Encoded as Encoded
    from zoo.inputs.checkpoint import Checkpoint as Checkpoint
    from zoo.inputs.task import CLASSES as CLASSES
    from zoo.inputs.task import REGRESSION as REGRESSION
    from zoo.inputs.task import SPAN as SPAN
    from zoo.inputs.task import Evaluation as Evaluation
    from zoo.inputs.task import Output as Output
    from zoo.inputs.task import Source as Source
    from zoo.inputs.task import Task as Task
    from zoo.inputs.task import divergence as divergence

    # Registration; suites and scales
    from zoo.registry import register_method as register_method
    from zoo.registry import register_scale as register_scale
    from zoo.registry import register_suite as register_suite
    from zoo.registry import register_task as register_task
    from zoo.runs.suites import Cell as Cell
    from zoo.runs.suites import Scale as Scale
    from zoo.runs.suites import grid as grid

    # Masking a model in a training loop
    from zoo.engine.compact import compact as compact
    from zoo.engine.compact_files import load_compact as load_compact
    from zoo.engine.export import export as export
    from zoo.engine.masked import MaskedModel as MaskedModel
    from zoo.engine.sparse import sparse as sparse
    from zoo.errors import ConfigError as ConfigError
    from zoo.errors import TrialError as TrialError


@cache
def _homes() -> dict[str, str]:
    """name -> module, read from the imports above, which are written once."""
    import ast
    from pathlib import Path

    (block,) = (
        n for n in ast.parse(Path(__file__).read_text("utf-8")).body if isinstance(n, ast.If)
    )
    found: dict[str, str] = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update((alias.asname or alias.name, node.module) for alias in node.names)
    return found


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__all__":
        return __dir__()
    if name.startswith("__") or name not in (homes := _homes()):
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(homes[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(_homes())
