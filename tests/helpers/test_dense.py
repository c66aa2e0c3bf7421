"""tests/helpers/dense.py: the slow reference itself, on examples worked out by hand."""

import math

import numpy as np
import pytest
from dense import Record, Reference, Tables, dense, running_sum

NAN = float("nan")
CURVATURE = np.array([1.0, 4.0])


def bowl(x: np.ndarray, z: np.ndarray) -> float:
    return float(0.5 * (CURVATURE * (x - z) ** 2).sum())


def bowl_gradient(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return CURVATURE * (x - z)


def three_steps() -> Tables:
    """Descent at rate 1/4 on 1/2 ((x-z)_1^2 + 4 (x-z)_2^2): z_0 = (0, 0), z_1 = (1, 0), then only weights."""
    z = [np.array([0.0, 0.0]), np.array([1.0, 0.0])]
    records = [
        Record(0, np.array([2.0, 1.0]), lr=0.25, tau=0.0, z=z[0]),
        Record(1, np.array([1.5, 0.0]), lr=0.25, tau=0.25, z=z[1]),
        Record(2, np.array([1.375, 0.0]), tau=0.5),
    ]
    reference = {"final": Reference(np.array([1.375, 0.0]), step=2)}
    return dense(records, reference, bowl, bowl_gradient, c=4.0, ref_gradients=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "prev_step": [NAN, 0, 1],
        "stride": [NAN, 1, 1],
        "weight": [1, 1, 0],
        "tau": [0, 0.25, 0.5],
        "lr": [0.25, 0.25, NAN],
        "loss": [4, 0.125, NAN],
        "param_norm": [math.sqrt(5), 1.5, 1.375],
        "grad_norm": [math.sqrt(20), 0.5, NAN],
        "step_norm": [NAN, math.sqrt(1.25), 0.125],
        "init_dist": [0, math.sqrt(1.25), math.sqrt(0.625**2 + 1)],
        "path_length": [0, math.sqrt(1.25), math.sqrt(1.25) + 0.125],
        "update_cos": [NAN, NAN, 0.5 / math.sqrt(1.25)],
        "update_corr": [NAN, -0.25, NAN],
        "descent": [NAN, -5, -0.0625],
        "descent_sum": [NAN, -5, -5.0625],
        "loss_change": [NAN, -2.375, NAN],  # f(x_0; z_1) = 2.5, not f(x_0; z_0) = 4
        "inst_gap": [NAN, -2.125, NAN],  # -1/2 d H d = -1/2 (0.25 + 4)
        "gap_resolution": [NAN, 4 * 2.0**-52 * 2.625, NAN],
        "avg_gap": [NAN, -2.125, NAN],
        "exp_gap": [NAN, -2.125, NAN],
        "convexity_num": [NAN, -0.25, NAN],
        "convexity_den": [NAN, -2.375, NAN],
        "convexity_ratio": [NAN, 0.25 / 2.375, NAN],
        "inst_smooth": [NAN, math.sqrt(13), NAN],  # |H d| / |d|
        "max_smooth": [NAN, math.sqrt(13), NAN],
        "smoothness_ratio": [NAN, 3.4, NAN],  # d H d / |d|^2
        "directional_smoothness": [NAN, 3.4, NAN],
    }.items(),
)
def test_steps_by_hand(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(three_steps().steps[name], expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "ref_dist": [math.sqrt(1.390625), 0.125, 0],
        "grad_norm": [math.sqrt(20), 0.5, NAN],
        "grad_dot_ref": [5.25, 0.0625, NAN],
        "rsi": [5.25 / 1.390625, 4, NAN],  # 4 = 1 / rate: the last step points at the reference
        "eb": [math.sqrt(20 / 1.390625), 4, NAN],
        "cos": [5.25 / math.sqrt(20 * 1.390625), 1, NAN],
        "cos_floor": [1 / math.sqrt(2), 1, NAN],
        "cos_skip": [1 / math.sqrt(5), NAN, NAN],  # (2, 4) with x_1 - x* = (1/8, 0); then x_2 = x*
        "lo_lr": [5.25 / 20, 0.25, NAN],
        "update_dot_ref": [-1.3125, -0.015625, NAN],
        "loss": [4, 0.125, NAN],
        "loss_ref": [0.9453125, 0.0703125, NAN],
        "inst_gap": [-2.1953125, -0.0078125, NAN],  # -1/2 e H e
        "gap_resolution": [4 * 2.0**-52 * 4.9453125, 4 * 2.0**-52 * 0.1953125, NAN],
        "avg_gap": [-2.1953125, (-2.1953125 - 0.0078125) / 2, NAN],
        "exp_gap": [-2.1953125, (-0.99 * 2.1953125 - 0.0078125) / 1.99, NAN],
        "convexity_num": [5.25, 5.3125, NAN],
        "convexity_den": [3.0546875, 3.109375, NAN],
        "convexity_ratio": [5.25 / 3.0546875, 5.3125 / 3.109375, NAN],
        "inst_smooth": [math.sqrt((0.625**2 + 16) / 1.390625), 1, NAN],
        "max_smooth": [math.sqrt((0.625**2 + 16) / 1.390625)] * 2 + [NAN],
    }.items(),
)
def test_towards_the_last_iterate_by_hand(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(three_steps().references["final"][name], expected, rtol=1e-14)


def test_records_in_pairs_weigh_by_the_steps_they_stand_for() -> None:
    records = [Record(step, np.array([x]), g=np.array([x])) for step, x in [(0, 8.0), (1, 4.0), (10, 2.0), (11, 1.0)]]
    tables = dense(records, {"zero": Reference(np.array([0.0]))}, c=4.0)
    np.testing.assert_array_equal(tables.steps["weight"], [1, 5, 5, 1])  # 0; 1 to 5; 6 to 10; 11
    np.testing.assert_array_equal(tables.steps["update_corr"], [NAN, -16, NAN, -1])
    np.testing.assert_array_equal(tables.steps["update_corr_sum"], [NAN, -96, NAN, -101])  # 0 to 5; 6 to 10
    np.testing.assert_array_equal(tables.steps["update_cos"], [NAN] * 4)
    np.testing.assert_array_equal(tables.steps["path_length"], [0, 4, 6, 7])
    towards = tables.references["zero"]
    np.testing.assert_array_equal(towards["convexity_num"], [64, 64 + 80, 64 + 80 + 20, 64 + 80 + 20 + 1])
    np.testing.assert_array_equal(towards["update_dot_ref"], [-32, NAN, -2, NAN])
    np.testing.assert_array_equal(towards["inst_gap"], [NAN] * 4)


def test_chords_of_ten_steps_count_once() -> None:
    records = [Record(10 * k, np.array([x]), g=np.array([x])) for k, x in enumerate([4.0, 3.0, 1.0])]
    steps = dense(records, {}, c=4.0).steps
    np.testing.assert_array_equal(steps["weight"], [6, 10, 5])  # 0 to 5; 6 to 15; 16 to 20
    np.testing.assert_allclose(steps["update_corr_sum"], [NAN, -3, -5])


def test_a_reference_before_or_outside_the_run_has_no_noise_floor() -> None:
    records = [Record(step, np.array([1.0]), g=np.array([1.0]), lr=0.1) for step in (0, 1, 4)]
    references = {"init": Reference(np.array([1.0]), step=0), "elsewhere": Reference(np.array([2.0]))}
    tables = dense(records, references, c=4.0)
    assert np.isnan(tables.references["init"]["cos_floor"]).all()
    assert np.isnan(tables.references["elsewhere"]["cos_floor"]).all()


def test_the_recorded_clip_factor_is_divided_out() -> None:
    record = Record(0, np.array([1.0]), g=np.array([0.5]), clip=0.25)
    assert dense([record], {}, c=4.0).steps["grad_norm"][0] == 2.0


def test_a_ratio_below_its_resolution_is_empty() -> None:
    def constant(x: np.ndarray, z: int) -> float:
        return 1.0

    def slope(x: np.ndarray, z: int) -> np.ndarray:
        return np.ones(1)

    records = [Record(step, np.array([float(step)]), z=0) for step in range(3)]
    tables = dense(records, {"zero": Reference(np.zeros(1))}, constant, slope, c=4.0)
    assert np.isnan(tables.references["zero"]["convexity_ratio"]).all()
    assert not np.isnan(tables.references["zero"]["convexity_num"]).any()


def test_running_sums_skip_undefined_rows() -> None:
    result = running_sum(np.array([1.0, NAN, 2.0]), lambda _: [1.0, 0.0, 3.0])
    np.testing.assert_array_equal(result, [1.0, NAN, 7.0])
