"""trajcheck.metrics.quantity, catalogue and trajcheck.tables: what a declaration says is enough to have the column."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from places import SAMPLES

from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS
from trajcheck.metrics.catalogue import MODULES, TABLES, quantities
from trajcheck.metrics.quantity import CURVATURE, FAMILY_NAMES, LOSS, NONE, RATE, Quantity, Unit
from trajcheck.tables import needed as needed
from trajcheck.tables.evaluated import with_own_error
from trajcheck.tables.operands import CONDITIONS, MADE

EVERY = [pytest.param(one, id=f"{table}-{name}") for table in TABLES for name, one in quantities(table).items()]


@pytest.mark.parametrize("one", EVERY)
def test_a_declaration_is_whole(one: Quantity) -> None:
    assert one.formula and one.range and one.symbol
    assert set(one.families) <= set(FAMILY_NAMES)
    assert set(one.optional) <= set(one.operands)
    if one.table in ("steps", "references"):
        assert set(one.when) <= CONDITIONS.keys()
        for name in one.operands:
            products = STEP_PRODUCTS.keys() | (REFERENCE_PRODUCTS.keys() if one.table == "references" else set())
            known = (one.table, name) in MADE or name in products or name in quantities(one.table)
            assert known or with_own_error(one.table, name), name
    if one.function is not None:
        assert one.function.__doc__, "the docstring gives the formula, the sign, and what makes it undefined"


def test_every_module_that_declares_columns_is_in_the_catalogue() -> None:
    folder = Path(__file__).parents[2] / "trajcheck" / "metrics" / "formulas"
    files = [path for path in folder.rglob("*.py") if "trajcheck.metrics.quantity import" in path.read_text()]
    assert {".".join(path.relative_to(folder).with_suffix("").parts) for path in files} == set(MODULES)


def test_units_in_words() -> None:
    assert [str(unit) for unit in (NONE, LOSS, CURVATURE, RATE, Unit(loss=2, length=-2))] == [
        *("none", "loss", "loss / length^2", "length^2 / loss", "loss^2 / length^2"),
    ]
    assert str(Unit(length=-2)) == "1 / length^2"


NEW = """
import sys
from types import ModuleType

from trajcheck.inner_products import catalogue as products

products.REFERENCE_PRODUCTS["init_dot_ref"] = (products.FROM_INIT, products.ERROR)
products.STEP_PRODUCTS["grad_dot_init"] = ("gradient", products.FROM_INIT)

from trajcheck.metrics import catalogue

catalogue.MODULES += ("new",)
module = sys.modules["trajcheck.metrics.formulas.new"] = ModuleType("trajcheck.metrics.formulas.new")
exec('''
from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import REFERENCES, STEPS, Unit, LOSS, quantity

@quantity(REFERENCES, formula="<x_t - x_0, e_t>", unit=Unit(length=2), family="geometry", of_tensor=True)
def from_init_dot_ref(init_dot_ref: Column) -> Column:
    "<x_t - x_0, e_t>."
    return init_dot_ref

@quantity(STEPS, formula="<g_t, x_t - x_0>", unit=LOSS, family="progress", of_tensor=True)
def grad_from_init(grad_dot_init: Column) -> Column:
    "<g_t, x_t - x_0>."
    return grad_dot_init
''', module.__dict__)

import numpy as np
from safetensors.numpy import load_file

import trajcheck

run, out, *objective = sys.argv[1:]
near = {"rtol": 1e-9 if objective == ["none"] else 1e-4}  # recorded in float32, replayed in float64
report = trajcheck.analyze(run, ["final"], *objective, layers=True, steps=":20", out=out)
files = [load_file(f"{run}/step-{t:09d}.safetensors") for t in (*range(20), 120)]
flat = lambda at, kind: np.concatenate(
    [each.astype(float).ravel() for name, each in sorted(files[at].items()) if name.startswith(kind)]
)
for t in range(20):
    away, error = flat(t, "param/") - flat(0, "param/"), flat(t, "param/") - flat(20, "param/")
    np.testing.assert_allclose(report.references["from_init_dot_ref"][t], away @ error, rtol=1e-9)
    np.testing.assert_allclose(report.steps["grad_from_init"][t], flat(t, "grad/") @ away, **near)
layers = report.layers
assert np.isclose(layers[layers["ref"] == "final"].groupby("step")["from_init_dot_ref"].sum()[7],
                  report.references["from_init_dot_ref"][7])
again = trajcheck.analyze(run, ["final"], *objective, layers=True, steps=":20", out=out)
assert again.summary["scalars"]["computed"] == 0
assert "from_init_dot_ref" in again.references and "grad_from_init" in again.steps
"""


@pytest.mark.parametrize("objective", ["none", "run"], ids=["recorded", "replayed"])
def test_a_new_inner_product_and_its_column_are_a_row_and_a_function(objective: str, tmp_path: Path) -> None:
    """Without another change it is computed by the pass and the replay, tensor by tensor too, saved, and written."""
    run = SAMPLES / "digits-sgd-seed0"
    done = subprocess.run(
        [sys.executable, "-c", NEW, str(run), str(tmp_path / "out"), objective], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
