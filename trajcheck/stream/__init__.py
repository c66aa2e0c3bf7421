"""The passes over recorded vectors: blocks of elements, each byte read once. No torch."""
