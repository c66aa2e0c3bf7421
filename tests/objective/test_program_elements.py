"""What an operator makes is never more than its rule says, told before it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from trajcheck.objective.dispatch.mode import Mode
from trajcheck.objective.program.arguments import CHOICES, Misfit
from trajcheck.objective.program.bounds.elements import FACTOR, FLOOR, RULES, allowed, made
from trajcheck.objective.program.bounds.operations import (
    CALL,
    DEAR,
    ELEMENT,
    REUSE,
    WORK,
    allowed_operations,
    operations,
)
from trajcheck.objective.program.schema import operators

A, B, C = torch.ones(3, 4), torch.ones(4), torch.ones(2, 3, 4)
IMAGE, LABELS = torch.ones(2, 4, 6, 6), torch.tensor([0, 2, 1])
KERNEL = torch.ones(8, 2, 3, 3)
WEIGHTS = [torch.ones(20, 4), torch.ones(20, 5), torch.ones(20), torch.ones(20)]
FIVE = torch.zeros(1, 3, 5)

#: Calls of each rule; tensors of them that are larger than any argument show whether it counts.
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "largest": [("relu.default", A), ("batch_norm.default", IMAGE, None, None, None, None, True, 0.1, 1e-5, False)],
    "broadcast": [("sub.Tensor", torch.ones(50, 1), torch.ones(40)), ("mse_loss.default", torch.ones(9, 1), B)],
    "inputs": [("sum.dim_IntList", torch.ones(50, 0), [1]),
               ("cat.default", [C, C, C]), ("stack.default", [A, A]), ("sort.default", A), ("sum.dim_IntList", C, [1])],
    "reshaped": [("reshape.default", A.expand(5, 3, 4), [60]), ("flatten.using_ints", A.expand(5, 3, 4))],
    "widened": [("expand.default", A, [5, -1, 4]), ("broadcast_to.default", A, [5, 3, 4]), ("expand_as.default", A, C),
                ("unfold.default", A, 1, 2, 1), ("broadcast_tensors.default", [A, C])],
    "viewed": [("view.default", A, [12]), ("view.default", A.expand(5, 3, 4), [5, 12])],
    "selected": [("index_select.default", A, 0, torch.zeros(50, dtype=torch.int64))],
    "gathered": [("gather.default", A, 0, torch.zeros(60, 4, dtype=torch.int64)),
                 ("take_along_dim.default", A, torch.zeros(60, 1, dtype=torch.int64), 0)],
    "indexed": [("index.Tensor", C, [None, torch.zeros(30, 7, dtype=torch.int64)]), ("index.Tensor", C, [C > 0]),
                ("index.Tensor", C, [torch.zeros(9, 1, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)])],
    "nonzero": [("nonzero.default", C)],
    "repeated": [("repeat.default", A, [2, 5, 1]), ("repeat_interleave.self_int", A, 7), ("tile.default", A, [3])],
    "diagonals": [("diag_embed.default", A, 2), ("diag_embed.default", B, 90)],
    "diagonal": [("diag.default", B, -3), ("diag.default", A)],
    "one_hot": [("one_hot.default", LABELS, 90)],
    "padded": [("pad.default", A, [3, 5, 2, 0]), ("reflection_pad2d.default", IMAGE, [1, 2, 3, 4])],
    "made": [("zeros.default", [7, 9]), ("arange.start_step", 1, 10, 0.25), ("linspace.default", 0, 1, 33),
             ("tril_indices.default", 5, 6), ("scalar_tensor.default", 2.0), ("new_full.default", A, [9, 9], 1.0),
             ("randint.low", 0, 3, [8]), ("randperm.default", 12), ("arange.default", 17)],
    "eye": [("eye.m", 5, 7), ("eye.default", 6)],
    "product": [("matmul.default", torch.ones(30, 1), torch.ones(1, 40)), ("addmm.default", B, A, torch.ones(4, 4)),
                ("matmul.default", torch.ones(5, 1, 3, 2), torch.ones(6, 2, 9)), ("dot.default", B, B),
                ("matmul.default", C, torch.ones(4, 50)), ("bmm.default", C, torch.ones(2, 4, 60))],
    "inner": [("inner.default", torch.ones(()), torch.ones(90)), ("inner.default", torch.ones(9, 2), torch.ones(7, 2))],
    "linear": [("linear.default", C, torch.ones(70, 4))],
    "bilinear": [("bilinear.default", A, A, torch.ones(9, 4, 4))],
    "outer": [("outer.default", B, torch.ones(60)), ("kron.default", A, A)],
    "einsum": [("einsum.default", "ij,kl->ikjl", [A, A]), ("einsum.default", "...i,ji->...j", [C, torch.ones(80, 4)]),
               ("einsum.default", "i,j,k->ijk", [B, B, B])],
    "tensordot": [("tensordot.default", torch.ones(9, 0), torch.ones(0, 8), [1], [0]),
                  ("tensordot.default", torch.ones(9, 2), torch.ones(2, 30), [1], [0])],
    "distances": [("cdist.default", torch.ones(20, 2), torch.ones(30, 2))],
    "decomposed": [("linalg_svd.default", torch.ones(90, 1)), ("linalg_qr.default", torch.ones(90, 1), "complete"),
                   ("linalg_svd.default", torch.ones(1, 90), False), ("linalg_qr.default", A)],
    "covariance": [("cov.default", torch.ones(90, 1)), ("cov.default", B)],
    "filled": [("_weight_norm.default", A, torch.ones(3, 1))],
    "group_norm": [("native_group_norm.default", torch.ones(9, 4, 0), None, None, 9, 4, 0, 4, 1e-5)],
    "antialiased": [("_upsample_bilinear2d_aa.default", IMAGE, [3, 40], False)],
    "four": [("linalg_inv.default", torch.eye(4)), ("linalg_solve.default", torch.eye(4).expand(5, 4, 4), C[0].T)],
    "fft": [("fft_fft.default", A, 64), ("fft_rfft2.default", A, [16, 16]), ("fft_irfftn.default", A)],
    "convolved": [("conv2d.default", IMAGE, KERNEL, None, [1, 1], [4, 4], [1, 1], 2),
                  ("conv2d.padding", IMAGE, KERNEL, None, [1, 1], "same", [2, 2], 2),
                  ("conv1d.default", A, torch.ones(9, 3, 2), None, [1], [5])],
    "transposed": [("conv_transpose2d.input", IMAGE, torch.ones(4, 3, 5, 5), None, [3, 3], [0, 0], [1, 1], 1, [2, 2])],
    "pooled": [("max_pool2d.default", IMAGE, [2, 2], [1, 1], [1, 1]), ("avg_pool1d.default", C, 2, [], 1, True),
               ("max_pool2d_with_indices.default", IMAGE, 3, 1, 1)],
    "adaptive": [("adaptive_avg_pool2d.default", IMAGE, [20, 30]), ("adaptive_max_pool1d.default", C, [50])],
    "resized": [("upsample_nearest2d.vec", IMAGE, None, [3.5, 2.0]),
                ("upsample_bilinear2d.default", IMAGE, [20, 9], True)],
    "unfolded": [("im2col.default", IMAGE, [3, 3], [1, 1], [2, 2], [1, 1])],
    "sampled": [("grid_sampler.default", IMAGE, torch.zeros(2, 20, 30, 2), 0, 0, False)],
    "affine": [("affine_grid_generator.default", torch.ones(2, 2, 3), [2, 1, 9, 9], False),
               ("affine_grid_generator.default", torch.ones(2, 2, 3), [2, 0, 9, 9], False)],
    "embedded": [("embedding.default", torch.ones(5, 60), LABELS)],
    "lstm": [("lstm.input", torch.ones(7, 3, 4), [FIVE, FIVE], WEIGHTS, True, 1, 0.0, False, False, False)],
    "gru": [("gru.input", torch.ones(3, 7, 4), FIVE, [each[:15] for each in WEIGHTS], True, 1, 0.0, False, False,
             True)],
    "rnn": [("rnn_tanh.input", torch.ones(7, 3, 4), FIVE.repeat(2, 1, 1), [each[:5] for each in WEIGHTS[:2]] * 2,
             False, 1, 0.0, False, True, False)],
    "lstm_cell": [("lstm_cell.default", A, [FIVE[0], FIVE[0]], *WEIGHTS)],
    "gru_cell": [("gru_cell.default", A, FIVE[0], *[each[:15] for each in WEIGHTS])],
    "rnn_cell": [("rnn_relu_cell.default", A, FIVE[0], *[each[:5] for each in WEIGHTS])],
    "attention": [("scaled_dot_product_attention.default", *[torch.ones(1, 2, 9, 3)] * 2, torch.ones(1, 2, 9, 40))],
    "pieces": [("chunk.default", A, 3), ("unbind.int", A, 1), ("split.Tensor", C, 1, 1), ("split.sizes", A, [1, 2])],
    "views": [("transpose.int", A, 0, 1), ("sym_size.int", A, 0), ("diagonal.default", C, 0, 1, 2)],
}  # fmt: skip


def fresh(found: Any, arguments: list[Any]) -> int:
    """Elements of results that lie in memory of their own."""
    known = {t.untyped_storage().data_ptr() for each in arguments for t in (each if isinstance(each, list) else [each])
             if isinstance(t, Tensor)}  # fmt: skip
    results = found if isinstance(found, list | tuple) else [found]
    own = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() // t.element_size() for t in results
           if isinstance(t, Tensor)}  # fmt: skip
    return sum(count for place, count in own.items() if place not in known)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_no_call_makes_more_than_its_rule_says(rule: str) -> None:
    for name, *arguments in CALLS[rule]:
        operator = operators()[name]
        assert operator.rule == rule, name
        given = dict(zip((each.name for each in operator.positional), arguments, strict=False))
        bound = made(operator.rule, {key: value for key, value in given.items() if value is not None})
        base, _, overload = name.partition(".")
        function: Callable[..., Any] = getattr(getattr(torch.ops.aten, base), overload)
        assert fresh(function(*arguments), arguments) <= bound, name


class Flops(Mode):
    """Multiply-adds of products and convolutions, as torch counts them."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if (packet := function._overloadpacket) in flop_registry:
            self.count += flop_registry[packet](*args, **(kwargs or {}), out_val=found) // 2
        return found


@pytest.mark.parametrize("rule", sorted(CALLS))
def test_no_call_takes_more_operations_than_are_told(rule: str) -> None:
    more: dict[str, list[tuple[Any, ...]]] = {
        "product": [("matmul.default", torch.ones(2, 1, 30, 70), torch.ones(3, 70, 20)),
                    ("mv.default", torch.ones(9, 900), torch.ones(900))],
        "einsum": [("einsum.default", "...ij,...jk->...ik", [torch.ones(2, 9, 300), torch.ones(2, 300, 8)])],
        "tensordot": [("tensordot.default", torch.ones(9, 500), torch.ones(500, 30), [1], [0])],
        "linear": [("linear.default", torch.ones(7, 900), torch.ones(3, 900), torch.ones(3))],
        "inner": [("inner.default", torch.ones(9, 700), torch.ones(7, 700))],
    }  # fmt: skip
    for name, *arguments in [*CALLS[rule], *more.get(rule, [])]:
        operator = operators()[name]
        given = dict(zip((each.name for each in operator.positional), arguments, strict=False))
        given = {key: value for key, value in given.items() if value is not None}
        told = operations(operator, given, made(rule, given)) - CALL
        base, _, overload = name.partition(".")
        with Flops() as counted:
            getattr(getattr(torch.ops.aten, base), overload)(*arguments)
        assert counted.count <= told, name
        if base in ("matmul", "linear") or rule in ("convolved", "transposed"):
            assert counted.count > 0, name


def test_operators_that_take_long_are_there() -> None:
    names = {name.partition(".")[0] for name in operators()}
    assert names >= {*DEAR} and {*WORK} <= names | {*RULES}


def test_arguments_that_do_not_fit_are_misfits() -> None:
    for rule in ("convolved", "einsum", "indexed", "lstm", "padded", "pieces"):
        with pytest.raises(Misfit, match="do not fit together"):
            made(rule, {})


def test_what_is_allowed_follows_from_shapes() -> None:
    assert allowed(0, 0, 0) == FLOOR
    assert allowed(1000, 64, 10) == FLOOR + FACTOR * 1640
    assert allowed_operations(1000, 64, 10) == ELEMENT * allowed(1000, 64, 10) + REUSE * 64_000


def test_the_table_is_what_torch_has() -> None:
    """Each operator with torch's own arguments, with none that opens, prints, resizes or reads memory as it lies."""
    table = operators()
    for name, operator in table.items():
        base, _, overload = name.partition(".")
        schema = getattr(getattr(torch.ops.aten, base), overload)._schema
        own = [(each.name, each.kwarg_only, not each.has_default_value()) for each in schema.arguments]
        assert own == [(each.name, each.keyword, each.needed) for each in operator.arguments], name
        assert operator.rule in RULES, name
        for each in operator.arguments:
            words = {f"{base}.{each.name}", each.name} & CHOICES.keys()
            assert each.type != "str" or words or each.optional or each.name == "equation", (name, each.name)
    forbidden = (
        "from_file",
        "print",
        "set_",
        "resize",
        "as_strided",
        "record_stream",
        "requires_grad",
        "storage",
        "save",
    )
    assert not [name for name in table if name.startswith(forbidden)]
