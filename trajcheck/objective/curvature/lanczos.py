"""The ends of a symmetric operator's spectrum, from products with vectors alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajcheck.errors import UsageError

#: Residual, relative to the largest |eigenvalue|, at which Lanczos stops where nothing else is asked for (in float32
#: rounding allows ten times that).
TOLERANCE = 1e-6
#: Error of an eigenvalue, relative to the largest |eigenvalue|, that is as good as any in most uses.
ERROR = 1e-4
#: r^2 / gap is the error of an eigenvalue where the gap to the next one is known; that between two Ritz values is up to
#: so many times too large before they have converged.
CAUTION = 4.0
#: Epsilons of the vectors, relative to the largest |eigenvalue|, below which what the recurrence says of a residual may
#: be rounding.
ROUNDING = 1000.0
#: Epsilons of the vectors, relative to the largest |eigenvalue|, that an eigenvalue may be off by their rounding.
OF_VECTORS = 10.0
#: How many times the largest |<u, H v> - <v, H u>|: it shows no rounding that both have.
OF_PRODUCTS = 3.0
#: Elements that are widened to float64 at a time: 8 MB on a CPU, to stay in its cache; 256 MB on a GPU, to occupy it.
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 25}
#: Vectors of the basis, however much memory there is: more cost more to orthogonalise against than they save.
LARGEST_BASIS = 128
SMALLEST_BASIS = 6
#: Products before the stopping rule counts: on H = I + one outlier, a start vector that hardly contains the outlier's
#: eigenvector satisfies it at once. Then it is tried every few products, and after each one where it is nearly met.
FIRST_CHECK = 10
CHECK_EVERY = 5
NEARLY = 30.0
#: Products for which the rule has to be met, where an end that is asked for is not the largest |eigenvalue|: the
#: outermost of a crowd may show itself only when a Ritz value has settled on the one beside it.
CONFIRMED = 3

#: Which ends of the spectrum may be asked for, and where they stand among Ritz values in ascending order.
ENDS: dict[str, tuple[int, ...]] = {"max": (-1,), "min": (0,), "both": (0, -1)}


@dataclass(frozen=True)
class Extremes:
    """The largest and the smallest eigenvalue of H, each with its residual |H v - lambda v|, |v| = 1; NaN for an end
    that was not asked for.

    Each is given or withheld on its own error, the last two numbers: it has converged where that is at most `bound`,
    (tolerance + 100 eps) max |lambda| and what rounding adds, eps that of the vectors' dtype; else it is the best value
    found. `products` counts all products with H.

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
    lambda_max_error: float = math.nan
    lambda_min_error: float = math.nan

    @property
    def max_converged(self) -> bool:
        return self.lambda_max_error <= self.bound

    @property
    def min_converged(self) -> bool:
        return self.lambda_min_error <= self.bound


def extreme_eigenvalues(
    matvec: Callable[[Tensor], Tensor],
    dimension: int,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    seed: int,
    ends: str = "both",
    tolerance: float = TOLERANCE,
    error: float | None = None,
    max_products: int = 500,
    memory: int | None = None,
    rounding: float | None = None,
) -> Extremes:
    """lambda_max and lambda_min of the symmetric H, or one of them, `matvec` giving H v [dimension] for v [dimension].

    Lanczos with full reorthogonalisation, done twice, and thick restart with Ritz vectors from both ends (Wu and
    Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J. Matrix Anal. Appl. 22, 2000).
    With T = V^T H V = S diag(theta) S^T on the basis V and beta the norm of what is left of H v_m, it stops when
    beta |S_mi| <= tolerance max |theta| for all `ends` i that are asked for ("max", "min" or "both"), and, where one of
    them is not max |theta|, does so still three products later. One more product for each gives lambda, the Rayleigh
    quotient v^T H v of the Ritz vector v = V S_i, and its true residual |H v - lambda v|. H has an eigenvalue within
    the residual r (and the rounding of one product) of lambda; that it is the outermost one is as certain as that a
    random vector contains the outermost eigenvector.

    With `error` it stops earlier, where an eigenvalue's own error is small enough: min(r, 4 r^2 / gap) <= error
    max |theta|, the gap being that to the next Ritz value (r^2 / gap, with the true gap, is what r implies of an
    eigenvalue: Parlett, "The Symmetric Eigenvalue Problem", 1998, theorem 11.7.1). lambda is then theta_i, and the
    residual is beta |S_mi|, without further products unless that is so small that it may be rounding. The errors that
    are stated have rounding in addition: 10 eps max |theta|, and three times the largest |<u, H v> - <v, H u>| that was
    met, which products in exact arithmetic would not have.

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
    found = dict.fromkeys((0, -1), (math.nan, math.nan, math.nan))
    try:
        solver.iterate(tolerance, error, max_products - len(places))
        for place in places:
            both_at_once = dimension == 1 and place != places[0]
            found[place] = found[places[0]] if both_at_once else solver.found(place, error is not None)
    except _NotFiniteProduct:
        return Extremes(math.nan, math.nan, math.nan, math.nan, solver.products, 0.0)
    except _NotSymmetric as found_asymmetry:
        return Extremes(math.nan, math.nan, math.nan, math.nan, solver.products, 0.0, found_asymmetry.args[0])
    bound = ((tolerance if error is None else error) + 100 * torch.finfo(dtype).eps) * solver.largest + solver.rounding
    (high, high_residual, high_error), (low, low_residual, low_error) = found[-1], found[0]
    values = high, high_residual, low, low_residual
    return Extremes(*values, solver.products, bound, lambda_max_error=high_error, lambda_min_error=low_error)


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
        self._apart = 0.0  # the largest |<v_j, H v_m> - <v_m, H v_j>| so far
        self._generator = torch.Generator().manual_seed(seed)
        self._basis: list[Tensor] = []
        self._projection = torch.zeros(capacity, capacity, dtype=torch.float64)
        self._ritz_values = self._ritz_vectors = self._projection[:0]
        self._beta = 0.0  # what was left of the last product when these were found
        self.products = 0

    @property
    def largest(self) -> float:
        """max |theta|."""
        return float(self._ritz_values.abs().max())

    @property
    def _only_the_largest(self) -> bool:
        """Whether the one end that is asked for is the largest |theta|."""
        return float(self._ritz_values[self._ends].abs().min()) == self.largest

    @property
    def rounding(self) -> float:
        """What rounding may do to an eigenvalue, by what the products show of it."""
        return OF_VECTORS * torch.finfo(self._dtype).eps * self.largest + OF_PRODUCTS * self._apart

    def iterate(self, tolerance: float, error: float | None, max_products: int) -> None:
        """Grow the basis, restarting it when it is full, until the stopping rule is met or products run out."""
        eps = torch.finfo(self._dtype).eps
        allowed = max(tolerance if error is None else error, 10 * eps)
        due, met_since = CHECK_EVERY, None
        self._basis.append(self._random_direction())
        while True:
            remainder, norm = self._product(self._basis[-1])
            column, beta = self._orthogonalise(remainder)
            m = len(self._basis)
            self._check_symmetry(column, norm)
            # All of the column, not only its two or three entries that are not rounding: a restarted T has an arrow.
            self._projection[:m, m - 1] = self._projection[m - 1, :m] = column
            complete = m == self._dimension
            if complete or beta <= OF_VECTORS * eps * max(norm, float(self._projection.diagonal().abs().max())):
                beta = 0.0
            full = m == len(self._projection)
            last = complete or self.products == max_products
            if last or full or self.products >= due:
                self._ritz_values, self._ritz_vectors = torch.linalg.eigh(self._projection[:m, :m])
                self._beta = beta
                found = max(self.error_of(i, self.residual_of(i), error is not None) for i in self._ends)
                met = found <= allowed * self.largest
                met = met and self.products >= FIRST_CHECK
                met_since = (met_since or self.products) if met else None
                if last or (met_since and self.products >= met_since + (0 if self._only_the_largest else CONFIRMED)):
                    return
                near = NEARLY if error is None else NEARLY**2  # an error is as the square of a residual
                nearly = found <= near * allowed * self.largest and self.products >= FIRST_CHECK
                due = self.products + (1 if nearly else CHECK_EVERY)
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
        self._apart = max(self._apart, apart)

    def residual_of(self, i: int) -> float:
        """beta |S_mi|, the residual of the i-th Ritz vector by the recurrence."""
        return float(self._beta * self._ritz_vectors[-1, i].abs())

    def error_of(self, i: int, residual: float, by_gap: bool) -> float:
        """The error of the i-th Ritz value, at one end of them, that a residual implies: at most the residual; where
        the next Ritz value is far from it (`by_gap`), its square by the gap."""
        if not by_gap or len(self._ritz_values) < 2 or not residual:
            return residual
        gap = float((self._ritz_values[i] - self._ritz_values[-2 if i else 1]).abs())
        return min(residual, CAUTION * residual / gap * residual) if gap else residual

    def found(self, i: int, by_gap: bool) -> tuple[float, float, float]:
        """The i-th Ritz value, its residual and its error: from the recurrence by_gap, where rounding is far below
        that, else by one product."""
        value, residual = float(self._ritz_values[i]), self.residual_of(i)
        if not by_gap or residual <= ROUNDING * torch.finfo(self._dtype).eps * self.largest:
            value, residual = self.ritz_pair(i)
        return value, residual, self.error_of(i, residual, by_gap) + self.rounding

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
            for row, vector in enumerate(self._basis):
                block[row].copy_(vector[part])
            yield part, block


def _norm(vector: Tensor) -> float:
    return math.sqrt(float(sum(part.dot(part) for (part,) in _wide(vector))))


def _wide(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The vectors in float64, part by part of their elements."""
    for parts in zip(*(vector.split(BLOCK[vector.device.type]) for vector in vectors), strict=True):
        yield tuple(part.double() for part in parts)
