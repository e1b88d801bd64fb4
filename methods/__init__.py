"""The zoo: each method is a factory that composes parts. Importing this package registers all."""

from methods import cap_lite, controls, magnitude, movement, smp

__all__ = ["cap_lite", "controls", "magnitude", "movement", "smp"]
