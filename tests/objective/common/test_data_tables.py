"""Folders of arrow and parquet files, as the library `datasets` keeps them. pyarrow is none of what the gate installs,
as pandas takes it for its texts where it is there: the second test is one where it is."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trajcheck.errors import ObjectiveError
from trajcheck.objective.common.config_file import ModelConfig
from trajcheck.objective.common.images import open_images
from trajcheck.objective.common.model_folder import ModelFolder
from trajcheck.objective.common.preprocessing import Preprocessing
from trajcheck.objective.common.token_stream import open_tokens

CONFIG = ModelConfig(ModelFolder(Path()), {"model_type": "gpt2"}, "sha256:0")


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "data-00000.arrow").write_bytes(b"")
    with pytest.raises(ObjectiveError, match=r"read by pyarrow, which is not installed: pip install trajcheck\[data\]"):
        open_tokens(tmp_path, CONFIG, 10, None)


def tables(tmp_path: Path) -> None:
    """Streams and files of arrow, parquet; lists of tokens, pictures as datasets stores them."""
    pyarrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    table = pyarrow.table({"label": [1, 0, 2], "input_ids": [[1, 2], [3], [4, 5, 6]]})
    stream = tmp_path / "saved"
    stream.mkdir()
    (stream / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    with (
        pyarrow.OSFile(str(stream / "data-00000-of-00001.arrow"), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    hub = tmp_path / "hub" / "data"
    hub.mkdir(parents=True)
    parquet.write_table(table, hub / "train-00000-of-00001.parquet")
    with pyarrow.OSFile(str(tmp_path / "one.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    for path in (stream, tmp_path / "hub", tmp_path / "one.arrow"):
        found, sources = open_tokens(path, CONFIG, 10, None)
        assert found.window(0, 9).tolist() == [1, 2, 3, 4, 5, 6] and found.documents == 3 and len(sources) == 1
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    image: Any = importlib.import_module("PIL.Image")
    files = []
    for each in pixels:
        image.fromarray(each).save(saved := io.BytesIO(), "PNG")
        files.append({"bytes": saved.getvalue(), "path": None})
    parquet.write_table(pyarrow.table({"image": files, "label": [1, 0]}), tmp_path / "images.parquet")
    images, _ = open_images(tmp_path / "images.parquet", Preprocessing(), {})
    np.testing.assert_allclose(images.pixels([1, 0]), pixels[::-1].transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    assert images.labels.tolist() == [1, 0]
    with pytest.raises(ObjectiveError, match="has no column input_ids or text; its columns are image, label"):
        open_tokens(tmp_path / "images.parquet", CONFIG, 10, None)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" * 9)
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1" * 9)
    for name in ("bad.parquet", "bad.arrow"):
        with pytest.raises(ObjectiveError, match="cannot be read"):
            open_tokens(tmp_path / name, CONFIG, 10, None)


if importlib.util.find_spec("pyarrow") is not None:
    test_tables = tables
