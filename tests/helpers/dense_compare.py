"""A plain, slow reference for compare.csv: whole vectors in memory, one loop over the pairs, long double.

Nothing here is shared with the package. A pair is (i, j, s): record i of A and record j of B, or with s > 0 the point
(1-s) b_j + s b_{j+1}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from dense import NAN, Columns, Record, Vector, cosine, flat, norm, over

Matched = tuple[int, int, float]


def strides(records: Sequence[Record]) -> list[int]:
    """Steps since the record before; 0 in the first."""
    steps = [record.step for record in records]
    return [0, *(after - before for before, after in pairwise(steps))]


def smallest_stride(records: Sequence[Record]) -> int:
    """Of all chords; but that to a closing iterate without a gradient counts only where it is the only one."""
    chords = strides(records)[1:]
    if records[-1].g is None and records[-1].z is None and len(chords) > 1:
        chords = chords[:-1]
    return min(chords, default=1)


def update(records: Sequence[Record], place: int) -> Vector | None:
    """x_t - x_{t-1} on a chord of the run's smallest stride."""
    if place == 0 or strides(records)[place] != smallest_stride(records):
        return None
    return flat(records[place].x) - flat(records[place - 1].x)


def compared(a: Sequence[Record], b: Sequence[Record], pairs: Sequence[Matched]) -> Columns:
    """What the weights alone, and recorded tau, give."""
    rows = []
    for i, j, s in pairs:
        x, y = flat(a[i].x), flat(b[j].x)
        tau_a, tau_b = a[i].tau, b[j].tau
        if s:
            y = y + s * (flat(b[j + 1].x) - y)
            later = b[j + 1].tau
            tau_b = None if tau_b is None or later is None else tau_b + s * (later - tau_b)
        from_a, from_b = x - flat(a[0].x), y - flat(b[0].x)
        d_a, d_b = update(a, i), update(b, j + 1 if s else j)
        dist = norm(x - y)
        rows.append(
            {
                "step_a": a[i].step,
                "step_b": b[j].step,
                "interpolated": float(s > 0),
                "tau_a": NAN if tau_a is None else tau_a,
                "tau_b": NAN if tau_b is None else tau_b,
                "dist": dist,
                "init_dist_a": norm(from_a),
                "init_dist_b": norm(from_b),
                "relative_dist": over(dist, max(norm(from_a), norm(from_b))),
                "displacement_cos": cosine(from_a, from_b),
                "update_cos": NAN if d_a is None or d_b is None else cosine(d_a, d_b),
            }
        )
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def along_line(
    a: Sequence[Record],
    b: Sequence[Record],
    pairs: Sequence[Matched],
    f: Callable[[Any, Any], float],
    count: int,
    batches: Sequence[Any] | None = None,
) -> Columns:
    """Losses on the line, on z of A's record or, with `batches`, the mean over them; the barrier and its error."""
    points = [k / (count + 1) for k in range(count + 2)]
    columns: dict[str, list[float]] = {}
    for i, j, s in pairs:
        x, y = flat(a[i].x), flat(b[j].x)
        y = y + s * (flat(b[j + 1].x) - y) if s else y
        zs = [a[i].z] if batches is None else batches
        losses = np.array(
            [[NAN if z is None else f(((1 - t) * x + t * y).astype(float), z) for t in points] for z in zs]
        )
        above = [[row[k] - ((1 - t) * row[0] + t * row[-1]) for k, t in enumerate(points)] for row in losses]
        heights = np.array(above).mean(axis=0)
        heights[0] = heights[-1] = 0 * heights[0]
        best = int(np.argmax(heights))
        found = {"barrier": heights[best], **{f"line_{t:.6g}": losses[:, k].mean() for k, t in enumerate(points)}}
        if len(zs) > 1:
            root = len(zs) ** 0.5
            found["barrier_se"] = np.std([row[best] for row in above], ddof=1) / root if 0 < best < count + 1 else 0.0
            found |= {f"line_{t:.6g}_se": losses[:, k].std(ddof=1) / root for k, t in enumerate(points)}
        for name, value in found.items():
            columns.setdefault(name, []).append(float(value))
    return {name: np.array(values) for name, values in columns.items()}
