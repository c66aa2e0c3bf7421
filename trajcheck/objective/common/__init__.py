"""Objectives of common models, made from the archive's own config.json and a data set: no code to write.

names.py         what --objective calls them, and the options that say on which data; needs no torch
config_file.py   config.json as plain data, with nothing in it that names code
built_model.py   transformers' own class for it, built within the bounds of the run's tensors
seeded.py        draws that are the same on every machine
token_stream.py  tokens: of a token file, of texts
token_batches.py windows of them, batch by batch
images.py        images with their classes, batch by batch
data_tables.py   folders of arrow and parquet files
making.py        all of it together: an Objective
"""
