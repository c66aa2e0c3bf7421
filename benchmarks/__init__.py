"""Speed and memory of trajcheck, as ratios within one run: `python -m benchmarks COMMAND`; see README.md."""
