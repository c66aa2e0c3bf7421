"""Folders of files of torch.save, a checkpoint each: plain loops, nanoGPT, timm, fairseq, mmengine, Lightning.

contents.py    what one file holds: the model's state dict, step numbers, optimizer, rate
numbering.py   which file is which step: from inside, else from names; duplicates, other models
metrics.py     Lightning's metrics.csv
run.py         the format
"""
