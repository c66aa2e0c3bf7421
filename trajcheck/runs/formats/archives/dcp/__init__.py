"""Checkpoints of torch.distributed.checkpoint: `.metadata`, and the `.distcp` files of the ranks.

metadata.py   what .metadata says: tensors, their chunks, and where each chunk is stored
chunks.py     the chunks of a tensor as one extent
run.py        the folders of the steps
"""
