"""Checkpoints of DeepSpeed, ZeRO stages 0 to 3.

partitions.py   the flat vectors of the optimizer's shards, cut into tensors again
run.py          the folders of the steps
"""
