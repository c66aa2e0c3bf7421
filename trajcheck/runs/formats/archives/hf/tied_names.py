"""Second names of tied weights that a model's config.json speaks of, and its files do not hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trajcheck.errors import StepFileError
from trajcheck.files.extents import Extent
from trajcheck.files.trees.tree import Tree, join

#: The embedding of tokens, by its last names, in the order in which a model's own is meant.
_EMBEDDING = re.compile(
    r"(^|\.)(shared|embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|token_embedding)\.weight$"
)
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")


def tied_by_config(tree: Tree, folder: str, tensors: Mapping[str, Extent]) -> dict[str, str]:
    """`lm_head.weight` by the name of the embedding, where config.json ties them and only one is stored."""
    if not tree.holds(join(folder, "config.json")):
        return {}
    try:
        config = tree.json(join(folder, "config.json"), 10_000_000)
    except StepFileError:
        return {}
    if not isinstance(config, dict) or config.get("tie_word_embeddings") is not True:
        return {}
    if any(_HEAD.search(name) for name in tensors):
        return {}
    found = [name for name in tensors if _EMBEDDING.search(name)]
    return {"lm_head.weight": found[0]} if len(found) == 1 else {}
