"""Files that are not on this machine: listed, and read by ranges; none is ever copied whole to a disk.

address.py   hf://, s3://, https://, ...: what is an address, and as a path
ranges.py    a source of ranges: tried again, checked, several at once
file.py      one file of a source: read by blocks that are kept for a while, or past them
web.py       ranges over HTTP
hub.py       repositories of Hugging Face's hub: revisions, listings
others.py    whatever fsspec has: s3, gs, ...
opening.py   the files at an address
staging.py   ranges brought into memory that is read as a file is
"""
