"""How large the models of this benchmark are: on a GPU, on a CPU, and for its test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Of a GPT: layers, width (a multiple of 64), tokens, context, and sequences of a batch."""

    layers: int
    width: int
    vocabulary: int
    length: int
    batch: int

    @property
    def words(self) -> str:
        """As an objective's file writes it."""
        return f"gpt({self.layers}, {self.width}, {self.vocabulary}, {self.length})"


@dataclass(frozen=True)
class Sizes:
    """`hidden`: width of the MLP (256: 0.27 M parameters). `small` is 6.3 M on a GPU, `large` GPT-2 small, 124 M, which
    trains under bfloat16 autocast. `steps` are recorded of the GPTs, `mlp_steps` of the MLP; `rows` of a sample run are
    replayed; `training` steps are timed, and so many are followed one by one. `rounds`: False measures everything once,
    cold."""

    hidden: int
    small: Shape
    large: Shape
    steps: int
    mlp_steps: int
    rows: int
    training: int
    rounds: bool = True


GPU = Sizes(256, Shape(4, 320, 4096, 128, 4), Shape(12, 768, 50257, 1024, 4), 6, 60, 1000, 40)
CPU = Sizes(64, Shape(2, 64, 256, 32, 2), Shape(2, 128, 512, 64, 2), 3, 30, 20, 20)
TEST = Sizes(8, Shape(1, 64, 32, 8, 1), Shape(1, 64, 32, 8, 1), 2, 2, 2, 4, rounds=False)
