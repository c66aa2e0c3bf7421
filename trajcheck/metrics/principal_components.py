"""The plane in which a trajectory varies most, from inner products alone. Letters: c_t = x_t - mean of the x_i."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajcheck.metrics.columns import Column

_NO_SPREAD = ("all chosen iterates are one point", "the chosen iterates lie on a line")


@dataclass(frozen=True)
class Projection:
    """Points in the plane of the first two principal components.

    `components` are their coordinates [length] along each, `off_plane` their distance from the plane [length], both on
    the chosen iterates; `explained` the share of the sum of |c_t|^2 that lies along each, None where there is no such
    direction. `points` are those of other points: two coordinates (or None) and the distance from the plane.
    """

    components: tuple[Column, Column]
    off_plane: Column
    explained: tuple[float | None, float | None]
    points: list[tuple[float | None, float | None, float]]


def principal_plane(gram: np.ndarray, cross: np.ndarray, squares: np.ndarray) -> Projection:
    """Principal components of n points from their Gram matrix.

    gram     [n, n]  <c_s, c_t>
    cross    [m, n]  <p_j, c_t> of m other points p_j = y_j - mean of the x_i, which do not move the plane
    squares  [m]     |p_j|^2

    With gram = U diag(l) U^T, l falling, the k-th coordinate of c_t is U_tk sqrt(l_k), that of p_j is
    sum_t <p_j, c_t> U_tk / sqrt(l_k), and l_k / sum(l) is what component k explains. The first point has coordinates of
    at most 0, which settles the signs. Components of l_k within rounding of 0 are undefined.
    """
    values, vectors = np.linalg.eigh(gram)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    total = float(values.sum())
    resolved = values > len(gram) * np.finfo(np.float64).eps * values[0]
    coordinates = vectors * np.sqrt(values)
    columns: list[Column] = []
    explained: list[float | None] = []
    points = np.zeros((2, len(squares)))
    for k, nothing in enumerate(_NO_SPREAD):
        if k >= len(gram) or not resolved[k]:
            columns.append(Column(np.full(len(gram), np.nan), np.full(len(gram), nothing, dtype=object)))
            explained.append(None)
            continue
        sign = -1.0 if coordinates[0, k] > 0 else 1.0
        columns.append(_defined(sign * coordinates[:, k]))
        explained.append(float(values[k]) / total)
        points[k] = sign * (cross @ vectors[:, k]) / np.sqrt(values[k])
    apart = np.sqrt(np.maximum(squares - (points**2).sum(axis=0), 0.0))
    return Projection(
        (columns[0], columns[1]),
        _defined(np.sqrt((coordinates[:, 2:] ** 2).sum(axis=1))),
        (explained[0], explained[1]),
        [_point(explained, points[:, j], apart[j]) for j in range(len(squares))],
    )


def _point(
    explained: list[float | None], coordinates: np.ndarray, apart: float
) -> tuple[float | None, float | None, float]:
    first, second = (None if explained[k] is None else float(coordinates[k]) for k in range(2))
    return first, second, float(apart)


def _defined(values: np.ndarray) -> Column:
    return Column(values, np.full(len(values), "", dtype=object))
