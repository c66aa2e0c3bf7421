"""Terms of sums over ALL steps of a run, recorded or not, from the sums that the Recorder kept between records."""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.files.extents import EPSILON
from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.runs.logs.all_losses import sums_between
from trajcheck.runs.snapshot import Window
from trajcheck.tables.operands import Operands, operand
from trajcheck.tables.source import Source

LEFT_OUT = "needs every recorded step up to this one as a row; --steps left some out"
NO_LOSS = "the loss of one of its steps was not observed"


@operand(STEPS)
def window_losses(o: Operands) -> Column:
    """The sum of f over the steps since the record before: what was kept with the record, or else that of a log of all
    steps."""
    logged = sums_between(o.source.trajectory.log, o.source.trajectory.steps)
    kept = [getattr(window, "loss_sum", None) for window in _windows(o.source)]
    places = o.source.each(lambda row: row.place)
    terms = [logged[place] if own is None else own for own, place in zip(kept, places, strict=True)]
    return _terms(o.source, terms)


@operand(STEPS)
def window_grad_squares(o: Operands) -> Column:
    """The sum of |g|^2 over the steps of a window."""
    return _terms(o.source, [getattr(window, "grad_sq_sum", None) for window in _windows(o.source)])


@operand(REFERENCES, products=("window_dot_ref",))
def window_terms(o: Operands) -> Column:
    """s + <G, x_k - x*>."""
    offsets = [None if window is None else window.grad_dot_offset for window in _windows(o.source)]
    terms = [
        None if offset is None or each.window_dot_ref is None else offset + each.window_dot_ref
        for offset, each in zip(offsets, o.towards, strict=True)
    ]
    return _terms(o.source, terms)


@operand(REFERENCES, products=("window_dot_skip",))
def window_skip_terms(o: Operands) -> Column:
    """<G, x_t - x*>."""
    return _terms(o.source, [each.window_dot_skip for each in o.towards])


@operand(REFERENCES, products=("ref_sq",))
def window_rounding(o: Operands) -> Column:
    """What rounding can make of a window's s + <G, x_k - x*>."""
    return _terms(o.source, _roundings(o, [row.place - 1 for row in o.source.rows.rows]))


@operand(REFERENCES, products=("ref_sq",))
def window_skip_rounding(o: Operands) -> Column:
    """What rounding can make of a window's <G, x_t - x*>."""
    return _terms(o.source, _roundings(o, [row.place for row in o.source.rows.rows]))


def _roundings(o: Operands, places: Sequence[int]) -> list[float | None]:
    """n additions to G, none of which is longer than sum |g|, rounded each by half an epsilon of the dtype in which G
    was summed: at most eps/2 n sqrt(n sum |g|^2) |x - x*|, x the iterate at one of `places`, and eps |s|."""
    assert o.number is not None
    found: list[float | None] = []
    for row, window, place in zip(o.source.rows.rows, _windows(o.source), places, strict=True):
        scalars = o.source.scalars.get(place)
        towards = [] if scalars is None else scalars.references
        distance = towards[o.number].ref_sq if o.number < len(towards) else None
        gradient = o.source.trajectory.snapshots[row.place].window_gradient
        if window is None or distance is None or window.grad_sq_sum is None:
            found.append(None)
            continue
        epsilon = max((EPSILON.get(each.dtype, 0.0) for each in gradient.values()), default=0.0)
        summed = window.steps * (window.steps * window.grad_sq_sum * distance) ** 0.5 / 2
        found.append(epsilon * (summed + abs(window.grad_dot_offset or 0.0)))
    return found


def _windows(source: Source) -> list[Window | None]:
    return source.each(lambda row: None if row.no_window else source.trajectory.snapshots[row.place].window)


def _terms(source: Source, terms: Sequence[float | None]) -> Column:
    """One term a record, 0 in the run's first."""
    if all(term is None for row, term in zip(source.rows.rows, terms, strict=True) if row.place):
        return column([None] * len(terms), source.each(lambda row: row.no_window if row.place else ""), NO_LOSS)
    places = source.rows.places
    missing = [
        ""
        if row.place == 0
        else (row.no_window if term is None else "") or ("" if row.place - 1 in places else LEFT_OUT)
        for row, term in zip(source.rows.rows, terms, strict=True)
    ]
    unknown = [
        "" if row.place == 0 or term is not None else NO_LOSS for row, term in zip(source.rows.rows, terms, strict=True)
    ]
    values = (0.0 if row.place == 0 else term for row, term in zip(source.rows.rows, terms, strict=True))
    return column(values, missing, unknown)
