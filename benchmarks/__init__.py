"""Speed and memory of trajcheck, as ratios within one run: `python -m benchmarks stream|replay|record|scale`."""
