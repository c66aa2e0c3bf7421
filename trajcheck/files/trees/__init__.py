"""Files by their names, wherever they lie: in a folder, in place within a tar or zip file, or elsewhere.

tree.py      what a tree answers: begin here to add one
folder.py    a folder; links that lead out of it are refused
below.py     a folder of a tree
members.py   a tree of which a table says all: archives, listings
tar.py       tar files: ustar, GNU, pax
zip.py       zip files whose entries are stored as they are
remote.py    listings of files that are not on this machine
opening.py   what lies at a path, by its content
"""
