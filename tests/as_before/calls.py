"""The calls whose reports stand beside this file, as they were before the house was put in order.

`python tests/as_before/calls.py` makes them anew: after a change that is meant to change reports, and for that alone.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SAMPLES = "sample_checkpoints"
DIGITS, DIGITS1 = f"{SAMPLES}/digits-sgd-seed0", f"{SAMPLES}/digits-sgd-seed1"
CANCER, TRANSFORMER = f"{SAMPLES}/breast-cancer-gd", f"{SAMPLES}/transformer-adamw"
OBJECTIVES = f"{SAMPLES}/objectives.py"
EXACT = ["--replay-dtype", "float64"]

#: The words of each call by its name, run in the repository. Those that replay do so in float64.
CALLS = {
    "vectors": [
        *("analyze", DIGITS, "--ref", "final", "--ref", "init", "--ref", "mean:3", "--objective", "none"),
        *("--layers", "--steps", "3:40:6"),
    ],
    "pairs": [
        *("analyze", TRANSFORMER, "--ref", "best", "--ref", "step:100", "--objective", "none"),
        *("--group", r"(\w+)\.", "--skip", "60"),
    ],
    "plane": ["analyze", DIGITS, "--metrics", "geometry", "--pca", "6", "--steps", ":4"],
    "samples": [
        *("analyze", DIGITS, "--ref", "final", "--ref", DIGITS1, "--objective", f"{OBJECTIVES}:digits", *EXACT),
        *("--sample", "own", "--sample", "previous", "--sample", "probe", "--ref-gradients", "--layers"),
        *("--path-integral", "2", "--memory-lags", "1,3", "--match-permutations", "--steps", "20:26"),
    ],
    "convention": ["analyze", DIGITS, "--objective", "run", *EXACT, "--convention", "tzc-v1", "--steps", ":12"],
    "hessian": [
        *(
            "analyze",
            CANCER,
            "--objective",
            f"{OBJECTIVES}:breast_cancer",
            "--curvature",
            "3",
            "--curvature-ends",
            "both",
            "--curvature-tolerance",
            "1e-12",
            "--steps",
            "140:",
        ),
    ],
    "adam": ["analyze", TRANSFORMER, "--objective", f"{OBJECTIVES}:transformer", *EXACT, "--steps", "100:201"],
    "compared": [
        *("compare", DIGITS, DIGITS1, "--objective", f"{OBJECTIVES}:digits", *EXACT, "--line", "3", "--layers"),
        *("--sample", "probe", "--align", "time", "--steps", "0:30:6"),
    ],
    "flow": ["flow", CANCER, "--objective", f"{OBJECTIVES}:breast_cancer", "--curvature", "60", "--rtol", "1e-6"],
}


def main() -> None:
    from trajcheck.cli import main as trajcheck

    os.chdir(ROOT)
    os.environ["TRAJCHECK_PLOTS"] = "0"
    for name, words in CALLS.items():
        out = HERE / name
        shutil.rmtree(out, ignore_errors=True)
        sys.argv = ["trajcheck", *words, "--quiet", "--out", str(out)]
        try:
            trajcheck()
        except SystemExit as ended:
            assert ended.code in (0, None), (name, ended.code)
        shutil.rmtree(out / "scalars", ignore_errors=True)
        for path in [*out.iterdir()]:
            if path.suffix != ".csv":
                path.unlink()


if __name__ == "__main__":
    main()
