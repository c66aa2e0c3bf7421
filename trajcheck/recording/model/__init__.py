"""Which tensors of a model are recorded, under which names, and whose they are."""
