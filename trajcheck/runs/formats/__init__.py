"""One disk layout a file: recognise it, and answer with snapshots of extents."""
