"""Report folders with made-up columns: what figures and pages are drawn from, without any run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trajcheck.metrics.assumptions.entries import NUMBERS
from trajcheck.reports.making.assumptions_table import KEYS
from trajcheck.reports.making.headline import NO_COSINE, NO_RATIO

#: What a headline says where nothing was found.
NO_CONVEXITY: dict[str, Any] = {**NO_RATIO, "shares": None, "shares_error": None}

OF_STEPS = (
    *("lr", "loss", "param_norm", "grad_norm", "step_norm", "init_dist", "path_length", "update_cos"),
    *("update_corr", "update_corr_sum", "descent", "descent_sum", "loss_change", "loss_change_sum", "inst_gap"),
    *("gap_resolution", "avg_gap", "exp_gap", "convexity_num", "convexity_den", "convexity_ratio", "inst_smooth"),
    *("max_smooth", "avg_smooth", "exp_smooth", "smoothness_ratio", "directional_smoothness", "lambda_max"),
    *("lambda_min", "grad_curvature", "stability_threshold", "replay_loss_error", "replay_grad_error"),
    *("predicted_change_max_sum", "predicted_change_exp_sum", "loss_change_known", "grad_true_sq", "batch_grad_sq"),
)
OF_REFERENCES = (
    *("ref_dist", "grad_norm", "grad_dot_ref", "rsi", "eb", "cos", "cos_floor", "cos_skip", "lo_lr", "lo_lr_smooth"),
    *("lr", "implied_rate", "update_dot_ref", "loss", "loss_ref", "inst_gap", "gap_resolution", "avg_gap", "exp_gap"),
    *("convexity_num", "convexity_den", "convexity_ratio", "inst_smooth", "max_smooth", "exp_smooth"),
)


OF_LOSSES = ("loss", "loss_min", "loss_max")
OF_ALLOCATION, TENSORS = ("allocation_sum",), [f"layer{number}.weight" for number in range(9)]
OF_AVERAGES, AVERAGES = ("valley_height", "valley_height_se", "jensen_gap"), ("last:5", "ema:.9")
OF_SCHEDULE = (
    *("distance_term", "gradient_term", "last_term", "bound", "loss_gap", "loss_gap_se", "rate_factor", "best_bound"),
)
OF_TRAJECTORY = ("component_1", "component_2", "off_plane")


def dependence(ref: str) -> dict[str, Any]:
    """That of the first iterate, or of the last of 40."""
    step = 0 if ref == "init" else 39
    return {"whole": step, "free": step, "found": ""}


def summary(refs: Sequence[str], samples: Sequence[str] = ("own",), **more: Any) -> dict[str, Any]:
    """The summary of an analysis that found nothing to say."""
    values = {ref: {"dependence": dependence(ref), **NO_COSINE, **NO_CONVEXITY} for ref in refs}
    one = {"previous": {**NO_COSINE, **NO_CONVEXITY}, "references": values}
    several = {} if len(samples) == 1 else {"samples": {sample: one for sample in samples}}
    return {
        "format": 1,
        "definitions": 1,
        "run": {
            "path": "runs/some",
            "id": "made-up",
            "optimizer": "SGD",
            "plain_sgd": True,
            "first_step": 0,
            "skip": 1,
        },
        "headline": {"sample": samples[0], **one, **several},
        "permutations": None,
        "trajectory": {
            "iterates": 40,
            "explained": [0.6, 0.2],
            "references": {
                ref: {"component_1": 0.1 * n, "component_2": 1.0, "off_plane": 2.0} for n, ref in enumerate(refs)
            },
        },
        "losses": {"rows": 40},
        "schedule": {
            "rows": 40,
            "first_step": 0,
            "step": 39,
            "one_function": False,
            "why": "",
            "skipped": 0,
            "not_theorem": {ref: {sample: [] for sample in samples} for ref in refs},
        },
        "alpha_beta": {
            ref: {
                sample: {"beta": [0.0, 1.0], "alpha": [-0.5, 2.0], "step": [3, 4], "slope": 1.2} for sample in samples
            }
            for ref in refs
        },
        "scale_invariant": None,
        "audit": None,
        "warnings": [],
        "incomplete": [],
        "left_out": {"steps": {}, "columns": {"steps": [], "references": []}},
        "options": {"skip": None, "layers": False, "pca": 40, "allocate": True, "average": ["last:5", "ema:.9"]},
        "replay": None,
        "versions": {"trajcheck": "0.1.0"},
        "created": "2026-01-01T00:00:00+00:00",
        **more,
    }


def random_columns(names: Sequence[str], rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    stream = np.random.default_rng(seed)
    return {name: stream.normal(size=rows) for name in names}


def ledger(refs: Sequence[str], samples: Sequence[str]) -> pd.DataFrame:
    """A row of convexity towards each reference, on each sample, satisfied on half of the rows, and rows of fits."""
    numbers = {**dict.fromkeys(NUMBERS, 0.5), "worst": 3.0, "worst_step": 7, "rows": 40}
    words = {"assumption": "convex", "parameter": "gap", "formula": "f(x) - f(y) - <g, x - y> <= 0"}
    rows = [{**words, "ref": ref, "sample": sample, **numbers} for ref in refs for sample in samples]
    fits = {"l0_l1": ("L0", "L1"), "h0_h1": ("H0", "H1"), "abc": ("A", "B", "C"), "alpha_beta": ("alpha", "beta")}
    rows += [
        {"assumption": name, "parameter": each, "formula": "", "ref": ref, "sample": sample, **numbers}
        for name, parameters in fits.items()
        for ref in (refs if name == "alpha_beta" else ["x_(t-1)"])
        for sample in samples
        for each in (*parameters, "explained")
    ]
    return pd.DataFrame(rows, columns=[*KEYS, *NUMBERS])


def write_report(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    about: Mapping[str, Any],
    undefined: Sequence[Sequence[str]] = (),
) -> Path:
    """A report folder as analyze would leave it."""
    folder.mkdir(parents=True, exist_ok=True)
    reasons = pd.DataFrame(undefined, columns=["table", "column", "ref", "sample", "steps", "reason"])
    for name, frame in {**tables, "undefined": reasons}.items():
        (folder / f"{name}.csv").write_text(frame.to_csv(index=False), errors="surrogateescape")
    (folder / "summary.json").write_text(json.dumps(about))
    return folder


def analysis(
    folder: Path,
    refs: Sequence[str] = ("final",),
    rows: int = 40,
    samples: Sequence[str] = ("own",),
    change: Mapping[str, Any] | None = None,
    only: Sequence[str] | None = None,
    **about: Any,
) -> Path:
    """An analysis with noise in every column, or in `only` those of its steps and references; `change` replaces columns
    by values, or (None) leaves them out."""
    steps = np.arange(rows)
    positive = (
        "grad_norm",
        "ref_dist",
        "eb",
        "lr",
        "path_length",
        "cos_floor",
        "inst_smooth",
        "max_smooth",
        "valley_height_se",
        "loss_gap_se",
    )

    def frame(names: Sequence[str], seed: int) -> pd.DataFrame:
        columns: dict[str, Any] = random_columns(names, rows, seed)
        columns |= {name: np.abs(columns[name]) for name in positive if name in columns}
        for name, values in (change or {}).items():
            if values is None:
                columns.pop(name, None)
            elif name in columns:
                columns[name] = values
        return pd.DataFrame({"step": steps, **columns, "weight": 1})

    of_steps, of_references = (
        [name for name in names if only is None or name in only] for names in (OF_STEPS, OF_REFERENCES)
    )
    own = [frame(of_steps, seed).assign(sample=sample, tau=0.1 * steps) for seed, sample in enumerate(samples)]
    towards = [
        frame(of_references, 100 + 10 * place + seed).assign(ref=ref, sample=sample)
        for place, ref in enumerate(refs)
        for seed, sample in enumerate(samples)
    ]
    tables = {"steps": pd.concat(own), "references": pd.concat(towards)}
    if only is not None:
        tables["assumptions"] = ledger([], [])
        nothing = {"schedule": None, "losses": None, "trajectory": None, "alpha_beta": None}
        options: dict[str, Any] = {"skip": None, "layers": False, "pca": None, "allocate": False, "average": []}
        return write_report(folder, tables, summary(refs, samples, **{**nothing, "options": options, **about}))
    plane = frame(OF_TRAJECTORY, 1).drop(columns="weight")
    losses = pd.DataFrame({"step": steps, "until": steps, **{n: frame([n], 2)[n] for n in OF_LOSSES}})
    tensors = [
        pd.DataFrame(
            {
                "step": steps,
                "sample": sample,
                "tensor": name,
                "group": "0",
                **{n: frame([n], 3)[n] for n in OF_ALLOCATION},
            }
        )
        for sample in samples
        for name in TENSORS
    ]
    tables |= {"trajectory": plane, "losses": losses}
    tables["assumptions"] = ledger(refs, samples)
    bound = frame(OF_SCHEDULE, 4).drop(columns="weight")
    tables["schedule"] = pd.concat(bound.assign(ref=ref, sample=sample) for ref in refs for sample in samples)
    tables["allocation"] = pd.concat(tensors)
    averages = [
        frame(OF_AVERAGES, 4).assign(average=average, sample=sample) for sample in samples for average in AVERAGES
    ]
    tables["averages"] = pd.concat(averages)
    return write_report(folder, tables, summary(refs, samples, **about))
