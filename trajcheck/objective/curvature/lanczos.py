"""The ends of a symmetric operator's spectrum, from products with vectors alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajcheck.errors import UsageError

#: Residual, relative to the largest |eigenvalue|, at which Lanczos stops (in float32 rounding allows ten times that).
#: On the sample runs it takes 33 to 42 products; 1e-4 takes 27 to 32, but leaves a lambda_min near 0 without a right
#: digit.
TOLERANCE = 1e-6
#: Elements that are widened to float64 at a time: 8 MB on a CPU, to stay in its cache; 256 MB on a GPU, to occupy it.
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 25}
#: Vectors of the basis, however much memory there is: more cost more to orthogonalise against than they save.
LARGEST_BASIS = 128
SMALLEST_BASIS = 6
#: Products before the stopping rule counts: on H = I + one outlier, a start vector that hardly contains the outlier's
#: eigenvector satisfies it at once.
FIRST_CHECK = 10
CHECK_EVERY = 5

#: Which ends of the spectrum may be asked for, and where they stand among Ritz values in ascending order.
ENDS: dict[str, tuple[int, ...]] = {"max": (-1,), "min": (0,), "both": (0, -1)}


@dataclass(frozen=True)
class Extremes:
    """The largest and the smallest eigenvalue of H, each with its residual |H v - lambda v|, |v| = 1; NaN for an end
    that was not asked for.

    Each is given or withheld on its own residual: it has converged where that is at most `bound`, (tolerance + 100 eps)
    max |lambda|, eps that of the vectors' dtype; else it is the best value found. `products` counts all products with
    H.

    `asymmetry` is the largest |<u, H v> - <v, H u>| / |H| that was met between vectors of the basis, where that is more
    than rounding makes: what was given is then no Hessian, and there are no eigenvalues.
    """

    lambda_max: float
    lambda_max_residual: float
    lambda_min: float
    lambda_min_residual: float
    products: int
    bound: float
    asymmetry: float = 0.0

    @property
    def max_converged(self) -> bool:
        return self.lambda_max_residual <= self.bound

    @property
    def min_converged(self) -> bool:
        return self.lambda_min_residual <= self.bound


def extreme_eigenvalues(
    matvec: Callable[[Tensor], Tensor],
    dimension: int,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    seed: int,
    ends: str = "both",
    tolerance: float = TOLERANCE,
    max_products: int = 500,
    memory: int | None = None,
    rounding: float | None = None,
) -> Extremes:
    """lambda_max and lambda_min of the symmetric H, or one of them, `matvec` giving H v [dimension] for v [dimension].

    Lanczos with full reorthogonalisation, done twice, and thick restart with Ritz vectors from both ends (Wu and
    Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J. Matrix Anal. Appl. 22, 2000).
    With T = V^T H V = S diag(theta) S^T on the basis V and beta the norm of what is left of H v_m, it stops when
    beta |S_mi| <= tolerance max |theta| for all `ends` i that are asked for ("max", "min" or "both"). One more product
    for each gives lambda, the Rayleigh quotient v^T H v of the Ritz vector v = V S_i, and its true residual
    |H v - lambda v|. H has an eigenvalue within the residual (and the rounding of one product) of lambda; that it is
    the outermost one is as certain as that a random vector contains the outermost eigenvector.

    Vectors are in `dtype` on `device`; inner products and T in float64. `seed` determines the start vector, for every
    device and dtype; the process's own random streams are not touched. `memory` bounds the bytes of the basis, 128
    vectors at most; a few vectors more are at work beside it. `max_products` includes the last ones.

    Lanczos takes H to be symmetric, and would give numbers for any other. So each H v_m is compared with the products
    before: <v_j, H v_m> = <v_m, H v_j>, which costs no product more. They may differ by the square root of `rounding`,
    relative to the largest |T_ij|, |H v_m|: the epsilon of the products' arithmetic (None: that of `dtype`).

    Undefined, all values NaN, when a product contains NaN or Inf, or H is not symmetric. H = 0 has lambda = 0 at both
    ends.
    Errors: UsageError where `memory` is less than six vectors, or `max_products` less than three.
    """
    if max_products < 3:
        raise UsageError(f"max_products is {max_products}; expected 3 at least")
    places = ENDS[ends]
    capacity = _capacity(dimension, dtype, memory)
    allowed = math.sqrt(max(torch.finfo(dtype).eps, rounding or 0.0))
    solver = _Lanczos(matvec, dimension, torch.device(device), dtype, seed, capacity, places, allowed)
    found = dict.fromkeys((0, -1), (math.nan, math.nan))
    try:
        solver.iterate(tolerance, max_products - len(places))
        for place in places:
            both_at_once = dimension == 1 and place != places[0]
            found[place] = found[places[0]] if both_at_once else solver.ritz_pair(place)
    except _NotFiniteProduct:
        return Extremes(math.nan, math.nan, math.nan, math.nan, solver.products, 0.0)
    except _NotSymmetric as found_asymmetry:
        return Extremes(math.nan, math.nan, math.nan, math.nan, solver.products, 0.0, found_asymmetry.args[0])
    bound = (tolerance + 100 * torch.finfo(dtype).eps) * solver.largest
    return Extremes(*found[-1], *found[0], solver.products, bound)


def _capacity(dimension: int, dtype: torch.dtype, memory: int | None) -> int:
    """The vectors of a basis within `memory` bytes."""
    vector = dimension * dtype.itemsize
    capacity = min(dimension, LARGEST_BASIS)
    if memory is not None:
        capacity = min(capacity, memory // vector)
    if capacity < min(dimension, SMALLEST_BASIS):
        raise UsageError(
            f"{memory:,} bytes hold {capacity} vectors of {dimension:,} elements, too few for eigenvalues; "
            f"give {SMALLEST_BASIS * vector:,} at least"
        )
    return capacity


class _NotFiniteProduct(Exception):
    """A product with H contains NaN or Inf."""


class _NotSymmetric(Exception):
    """<u, H v> and <v, H u> differ by more than rounding; the argument says by how much, relatively."""


class _Lanczos:
    """An orthonormal basis V, as a list of m vectors [n], and the projection T = V^T H V [m, m]."""

    def __init__(
        self,
        matvec: Callable[[Tensor], Tensor],
        dimension: int,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
        capacity: int,
        ends: Sequence[int],
        asymmetry: float,
    ) -> None:
        self._matvec, self._dimension, self._device, self._dtype = matvec, dimension, device, dtype
        self._ends, self._asymmetry = list(ends), asymmetry
        self._transposed = torch.zeros(0, dtype=torch.float64)  # <v_m, H v_j> of the next v_m, by the products before
        self._generator = torch.Generator().manual_seed(seed)
        self._basis: list[Tensor] = []
        self._projection = torch.zeros(capacity, capacity, dtype=torch.float64)
        self._ritz_values = self._ritz_vectors = self._projection[:0]
        self.products = 0

    @property
    def largest(self) -> float:
        """max |theta|."""
        return float(self._ritz_values.abs().max())

    def iterate(self, tolerance: float, max_products: int) -> None:
        """Grow the basis, restarting it when it is full, until the stopping rule is met or products run out."""
        eps = torch.finfo(self._dtype).eps
        self._basis.append(self._random_direction())
        while True:
            remainder, norm = self._product(self._basis[-1])
            column, beta = self._orthogonalise(remainder)
            m = len(self._basis)
            self._check_symmetry(column, norm)
            # All of the column, not only its two or three entries that are not rounding: a restarted T has an arrow.
            self._projection[:m, m - 1] = self._projection[m - 1, :m] = column
            complete = m == self._dimension
            if complete or beta <= 10 * eps * max(norm, float(self._projection.diagonal().abs().max())):
                beta = 0.0
            full = m == len(self._projection)
            last = complete or self.products == max_products
            if last or full or self.products % CHECK_EVERY == 0:
                self._ritz_values, self._ritz_vectors = torch.linalg.eigh(self._projection[:m, :m])
                estimate = beta * self._ritz_vectors[-1, self._ends].abs().max()
                met = bool(estimate <= max(tolerance, 10 * eps) * self._ritz_values.abs().max())
                if last or (met and self.products >= FIRST_CHECK):
                    return
                if full:
                    kept = self._restart()
                    self._transposed = beta * self._ritz_vectors[-1, kept]
            if not full:
                self._transposed = torch.zeros(m, dtype=torch.float64)
                self._transposed[-1] = beta
            # Where nothing is left of H v_m, V spans an invariant subspace, and H may have more outside it.
            self._basis.append(remainder.div_(beta) if beta else self._random_direction())

    def _check_symmetry(self, column: Tensor, norm: float) -> None:
        """Raise _NotSymmetric where <v_j, H v_m>, the column, is not what <v_m, H v_j> was."""
        before = self._transposed
        if not len(before):
            return
        scale = max(norm, float(self._projection.abs().max()))
        apart = float((column[: len(before)] - before).abs().max())
        if apart > self._asymmetry * scale:
            raise _NotSymmetric(apart / scale)

    def ritz_pair(self, i: int) -> tuple[float, float]:
        """(lambda, |H v - lambda v|) for the i-th Ritz vector v, by one product."""
        weights = self._ritz_vectors[:, i].to(self._device)
        v = torch.empty_like(self._basis[0])
        for part, block in self._blocks():
            v[part] = weights @ block
        product, _ = self._product(v)
        sq = dot = torch.zeros((), dtype=torch.float64, device=self._device)
        for a, b in _wide(v, product):
            sq, dot = sq + a.dot(a), dot + a.dot(b)
        value = dot / sq
        residual_sq = torch.zeros_like(sq)
        for a, b in _wide(v, product):
            residual_sq += (b - value * a).square().sum()
        return float(value), float((residual_sq / sq).sqrt())

    def _product(self, v: Tensor) -> tuple[Tensor, float]:
        """H v, as a tensor of its own, and its norm."""
        product = self._matvec(v).to(self._device, self._dtype, copy=True)
        self.products += 1
        norm = _norm(product)
        if not math.isfinite(norm):
            raise _NotFiniteProduct
        return product, norm

    def _random_direction(self) -> Tensor:
        """A random unit vector orthogonal to the basis."""
        # Drawn in float32 on the CPU: the same for every dtype and device.
        draw = torch.randn(self._dimension, generator=self._generator, dtype=torch.float32)
        direction = draw.to(self._device, self._dtype)
        norm = self._orthogonalise(direction)[1] if self._basis else _norm(direction)
        return direction.div_(norm)

    def _orthogonalise(self, w: Tensor) -> tuple[Tensor, float]:
        """Take from w, in place and twice, what lies in the basis: (V^T w [m] on the CPU, the norm of the rest)."""
        first, second, sq = (
            torch.zeros(size, dtype=torch.float64, device=self._device)
            for size in (len(self._basis), len(self._basis), ())
        )
        for part, block in self._blocks():
            first += block @ w[part].double()
        for part, block in self._blocks():
            w[part] = w[part].double() - first @ block
            second += block @ w[part].double()
        for part, block in self._blocks():
            w[part] = w[part].double() - second @ block
            sq += w[part].double().square().sum()
        return (first + second).cpu(), math.sqrt(float(sq))

    def _restart(self) -> list[int]:
        """Keep the Ritz vectors next to both ends, a quarter of the basis each, as the new basis: with one end alone it
        is no faster. Which they are, among the Ritz vectors."""
        quarter = len(self._basis) // 4
        kept = [*range(quarter), *range(-quarter, 0)]
        rotation = self._ritz_vectors[:, kept].T.to(self._device)
        for part, block in self._blocks():
            for vector, row in zip(self._basis, rotation @ block, strict=False):
                vector[part] = row
        del self._basis[len(kept) :]
        self._projection.zero_()
        self._projection.diagonal()[: len(kept)] = self._ritz_values[kept]
        return kept

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The basis in float64 [m, part], part by part of its elements; each block takes the memory of the last."""
        m = len(self._basis)
        size = min(self._dimension, BLOCK[self._device.type] // m)
        memory = torch.empty(m * size, dtype=torch.float64, device=self._device)
        for start in range(0, self._dimension, size):
            part = slice(start, min(start + size, self._dimension))
            block = memory[: m * (part.stop - start)].view(m, -1)
            for row, vector in zip(block, self._basis, strict=True):
                row.copy_(vector[part])
            yield part, block


def _norm(vector: Tensor) -> float:
    return math.sqrt(float(sum(part.dot(part) for (part,) in _wide(vector))))


def _wide(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The vectors in float64, part by part of their elements."""
    for parts in zip(*(vector.split(BLOCK[vector.device.type]) for vector in vectors), strict=True):
        yield tuple(part.double() for part in parts)
