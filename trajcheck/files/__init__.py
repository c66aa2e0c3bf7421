"""Bytes on the disk: where a tensor lies, reading it, writing whole files, knowing a file again. Knows no run."""
