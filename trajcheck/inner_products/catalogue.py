"""Which inner products a row of scalars holds, and how they are made from the vectors at hand.

Vectors of a row t, by name
    x, previous, next     x_t, x_{t-1}, x_{t+1}: this and the neighbouring recorded iterates
    skip, first           x_s (s at least `--skip` steps on), x_0
    gradient              g_t = grad f(x_t; z_t), recorded or replayed
    gradient_previous     grad f(x_{t-1}; z_t), replayed
    gradient_between      grad f at a point between x_{t-1} and x_t, replayed
    recorded              g_t as recorded, beside a replayed `gradient`
    regularised           g_t + lambda x_t, lambda the weight decay of each parameter
    window, window_start  G, the sum of the gradients of all steps since record k, and x_k
    batch_sum, unit_sum   of the batches b of one row: sum of g_b, and of g_b / |g_b|
    reference, gradient_reference     x* and grad f(x*; z_t), for each reference

Differences are formed first, in float64, and multiplied afterwards: expanding |x - y|^2 into three inner products loses
every digit at the distances that occur in training. The numpy pass and the replay call the same function here, with
their own `subtract` and `dot`, so that both emit the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

V = TypeVar("V")
D = TypeVar("D")

#: A vector, or the difference of two.
Operand = str | tuple[str, str]

STEP: Operand = ("x", "previous")  # d_t
NEXT_STEP: Operand = ("next", "x")  # d_{t+1}
FROM_INIT: Operand = ("x", "first")
ERROR: Operand = ("x", "reference")  # e_t
START_ERROR: Operand = ("window_start", "reference")  # x_k - x*
SKIP_ERROR: Operand = ("skip", "reference")  # x_s - x*
CHANGE: Operand = ("gradient", "gradient_previous")
REFERENCE_CHANGE: Operand = ("gradient", "gradient_reference")
DISAGREEMENT: Operand = ("gradient", "recorded")

#: What a step has by itself: a field of scalars.StepScalars -> its two factors.
STEP_PRODUCTS: dict[str, tuple[Operand, Operand]] = {
    "param_sq": ("x", "x"),  # |x_t|^2
    "step_sq": (STEP, STEP),  # |d_t|^2
    "step_dot_next": (STEP, NEXT_STEP),  # <d_t, d_{t+1}>
    "init_sq": (FROM_INIT, FROM_INIT),  # |x_t - x_0|^2
    "grad_sq": ("gradient", "gradient"),  # |g_t|^2
    "grad_dot_param": ("gradient", "x"),  # <g_t, x_t>
    "grad_dot_step": ("gradient", STEP),  # <g_t, d_t>
    "grad_dot_next": ("gradient", NEXT_STEP),  # <g_t, d_{t+1}>
    "previous_grad_dot_step": ("gradient_previous", STEP),  # <grad f(x_{t-1}; z_t), d_t>
    "grad_change_sq": (CHANGE, CHANGE),  # |g_t - grad f(x_{t-1}; z_t)|^2
    "regularised_sq": ("regularised", "regularised"),  # |g_t + lambda x_t|^2
    "recorded_sq": ("recorded", "recorded"),  # |recorded g_t|^2, where g_t was replayed
    "disagreement_sq": (DISAGREEMENT, DISAGREEMENT),  # |g_t - recorded g_t|^2
    "path_integral": ("gradient_between", STEP),  # summed with Gauss-Legendre weights over points between
    "path_remainder": ("gradient_between", STEP),  # with the weights of the highest Legendre polynomial they tell
    "grad_dot_sum": ("gradient", "batch_sum"),  # <g_b, sum of all g>, on one of the batches of a row
    "grad_dot_units": ("gradient", "unit_sum"),  # <g_b, sum of all g / |g|>
}

#: Those that are sums over points between x_{t-1} and x_t.
CHORD_PRODUCTS = ("path_integral", "path_remainder")

#: What a step has towards x*: a field of scalars.ReferenceScalars -> its two factors.
REFERENCE_PRODUCTS: dict[str, tuple[Operand, Operand]] = {
    "ref_sq": (ERROR, ERROR),  # |e_t|^2
    "skip_sq": (SKIP_ERROR, SKIP_ERROR),  # |x_s - x*|^2
    "next_dot_ref": (NEXT_STEP, ERROR),  # <d_{t+1}, e_t>
    "grad_dot_ref": ("gradient", ERROR),  # <g_t, e_t>
    "regularised_dot_ref": ("regularised", ERROR),  # <g_t + lambda x_t, e_t>
    "grad_dot_skip": ("gradient", SKIP_ERROR),  # <g_t, x_s - x*>
    "ref_grad_change_sq": (REFERENCE_CHANGE, REFERENCE_CHANGE),  # |g_t - grad f(x*; z_t)|^2
    "window_dot_ref": ("window", START_ERROR),  # <G, x_k - x*>, G the sum of the gradients from record k to t
    "window_dot_skip": ("window", ERROR),  # <G, x_t - x*>
}


#: What each of several batches of one row has with all of them.
BATCH_PRODUCTS = ("grad_dot_sum", "grad_dot_units")

#: What a step is asked for that is no row itself but stands just before one.
SUPPORT_PRODUCTS = ("step_sq", "step_dot_next", "grad_dot_next")


def vectors_needed(products: Iterable[tuple[Operand, Operand]]) -> set[str]:
    """The vectors that some products are made of."""
    names: set[str] = set()
    for factors in products:
        for operand in factors:
            names.update((operand,) if isinstance(operand, str) else operand)
    return names


def inner_products(
    vectors: Mapping[str, V],
    references: Sequence[Mapping[str, V]],
    step_products: Iterable[str],
    reference_products: Iterable[str],
    subtract: Callable[[V, V], V],
    dot: Callable[[V, V], D],
) -> tuple[dict[str, D], list[dict[str, D]]]:
    """The asked-for products whose vectors are all there, for the step and for each reference.

    `subtract` and `dot` work in float64 on one block of the vectors.
    """
    differences: dict[Operand, V] = {}
    own = _products(vectors, {}, differences, STEP_PRODUCTS, step_products, subtract, dot)
    towards = [
        _products(vectors, reference, differences, REFERENCE_PRODUCTS, reference_products, subtract, dot)
        for reference in references
    ]
    return own, towards


def _products(
    vectors: Mapping[str, V],
    reference: Mapping[str, V],
    shared: dict[Operand, V],
    table: Mapping[str, tuple[Operand, Operand]],
    names: Iterable[str],
    subtract: Callable[[V, V], V],
    dot: Callable[[V, V], D],
) -> dict[str, D]:
    """`shared` collects the differences that do not involve the reference, for all references of a row."""
    known = {**vectors, **reference}
    differences: dict[Operand, V] = {}
    found: dict[str, D] = {}
    for name in names:
        for key in table[name]:
            if isinstance(key, str) or key in shared or key in differences:
                continue
            if key[0] in known and key[1] in known:
                own = key[0] in reference or key[1] in reference
                (differences if own else shared)[key] = subtract(known[key[0]], known[key[1]])
        left, right = (
            known.get(key) if isinstance(key, str) else differences.get(key, shared.get(key)) for key in table[name]
        )
        if left is not None and right is not None:
            found[name] = dot(left, right)
    return found
