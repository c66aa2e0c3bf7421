"""Tokens of files and texts, windows of them, and what is drawn: against plain numpy and a specification in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from trajcheck.errors import ObjectiveError
from trajcheck.objective.common.config_file import ModelConfig
from trajcheck.objective.common.model_folder import ModelFolder
from trajcheck.objective.common.seeded import choose
from trajcheck.objective.common.token_batches import TokenBatches
from trajcheck.objective.common.token_stream import TokenFile, open_tokens

TOKENIZER = {
    "version": "1.0",
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "?": 3}, "unk_token": "?"},
    "pre_tokenizer": {"type": "Whitespace"},
    "added_tokens": [],
}


def config(folder: Path, **entries: object) -> ModelConfig:
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return ModelConfig(ModelFolder(folder), {"model_type": "gpt2", **entries}, "sha256:0")


def test_draws_are_those_of_their_specification() -> None:
    def number(seed: int, count: int) -> int:
        text = b"trajcheck draw" + seed.to_bytes(8, "little") + count.to_bytes(8, "little")
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")

    for seed, n, count in ((0, 10, 10), (7, 1000, 20), (2**63 - 1, 3, 1)):
        left, wanted = list(range(n)), []
        for i in range(count):
            j = i + number(seed, i) % (n - i)  # none is above the largest multiple, as is checked
            assert number(seed, i) < 2**64 - 2**64 % (n - i)
            left[i], left[j] = left[j], left[i]
            wanted.append(left[i])
        assert choose(count, n, seed) == wanted
    assert choose(4, 100, 0) == [27, 53, 40, 52], "the same on every machine"
    assert sorted(choose(50, 50, 3)) == list(range(50))


def test_windows_of_a_token_file(tmp_path: Path) -> None:
    tokens = np.arange(103) % 50
    tokens.astype("<u2").tofile(tmp_path / "tokens.bin")
    stream, sources = open_tokens(tmp_path / "tokens.bin", config(tmp_path), 50, None)
    assert isinstance(stream, TokenFile) and stream.dtype == "uint16" and len(stream) == 103 and len(sources) == 1
    batches = TokenBatches(stream, 10, 4, "tokens.bin")
    whole = [batch.numpy() for batch in batches]
    assert [batch.shape for batch in whole] == [(4, 10), (4, 10), (2, 10), (1, 3)]
    assert (np.concatenate([batch.reshape(-1) for batch in whole]) == tokens).all()
    assert [batches.weight(batch) for batch in batches] == [36, 36, 18, 2]
    drawn, places = batches.drawn(2, 5)
    starts = [10 * window for window in choose(8, 10, 5)]
    assert places == [starts[:4], starts[4:]]
    for batch, each in zip(drawn, places, strict=True):
        assert (batch.numpy() == np.stack([tokens[start : start + 10] for start in each])).all()
    with pytest.raises(ObjectiveError, match="has 10 windows of 10 tokens, and --probe 3 of --batch-size 4 takes 12"):
        batches.drawn(3, 0)
    with pytest.raises(ObjectiveError, match="has 103 tokens, fewer than one window of --sequence-length 104"):
        TokenBatches(stream, 104, 4, "tokens.bin")


def test_what_a_token_file_is_read_as(tmp_path: Path) -> None:
    path, known = tmp_path / "tokens.bin", config(tmp_path)
    np.arange(1, 101, dtype="<u4").tofile(path)
    with pytest.raises(ObjectiveError, match=r"every second number of uint16 is 0.*--data-dtype"):
        open_tokens(path, known, 200, None)
    assert len(open_tokens(path, known, 200, "uint32")[0]) == 100
    assert open_tokens(path, known, 1 << 17, None)[0].dtype == "uint32"
    stream, _ = open_tokens(path, known, 90, "uint32")
    with pytest.raises(ObjectiveError, match="token 89 is 90, and the model has 90 tokens"):
        stream.window(80, 20)
    path.write_bytes(b"abc")
    with pytest.raises(ObjectiveError, match="has 3 bytes, which are no tokens of uint16"):
        open_tokens(path, known, 200, None)


def test_texts(tmp_path: Path) -> None:
    known = config(tmp_path, eos_token_id=[3, 9])
    (tmp_path / "a.jsonl").write_text('{"text": "a b"}\n\n{"text": "c"}\n{"input_ids": [2, 2]}\n')
    (tmp_path / "b.txt").write_text("b b\na")
    stream, sources = open_tokens(tmp_path / "a.jsonl", known, 4, None)
    assert stream.window(0, len(stream)).tolist() == [0, 1, 3, 2, 3, 2, 2] and stream.documents == 3
    assert [Path(each).name for each in sources] == ["a.jsonl", "tokenizer.json"]
    folder, _ = open_tokens(tmp_path, known, 4, None)
    assert folder.window(0, len(folder)).tolist() == [0, 1, 3, 2, 3, 2, 2, 1, 1, 0, 3]
    none, _ = open_tokens(tmp_path / "b.txt", config(tmp_path), 4, None)
    assert none.window(0, 9).tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.jsonl", '{"words": 1}', 'line 1 has neither "text" nor "input_ids"'),
        ("a.jsonl", '{"input_ids": [[1]]}', "neither a text nor a list of tokens"),
        ("a.jsonl", '{"input_ids": [1, 77]}', "token 1 is 77, and the model has 4 tokens"),
        ("a.jsonl", '{"input_ids": [-1]}', "token 0 is -1"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "evil"}}', "is no tokenizer that this version"),
        ("a.txt", "\0", None),
    ],
)
def test_bad_texts(name: str, text: str, words: str | None, tmp_path: Path) -> None:
    known = config(tmp_path)
    (tmp_path / name).write_text(text)
    if name == "tokenizer.json":
        (tmp_path / "a.txt").write_text("a")
    path = tmp_path / ("a.txt" if name == "tokenizer.json" else name)
    if words is None:
        assert len(open_tokens(path, known, 4, None)[0]) == 1
        return
    with pytest.raises(ObjectiveError, match=words):
        open_tokens(path, known, 4, None)


def test_what_a_folder_lacks(tmp_path: Path) -> None:
    known = config(tmp_path)
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    with pytest.raises(ObjectiveError, match=r"holds no \.jsonl, \.txt, \.arrow or \.parquet file"):
        open_tokens(data, known, 4, None)
    (data / "train" / "a.txt").write_text("a")
    with pytest.raises(ObjectiveError, match="holds the folders train: name one of them"):
        open_tokens(data, known, 4, None)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ObjectiveError, match=r"is text, and no tokenizer\.json lies beside .*config\.json"):
        open_tokens(data / "train", known, 4, None)
    with pytest.raises(ObjectiveError, match="is no file of tokens, for which --data-dtype uint16 is"):
        open_tokens(data / "train", known, 4, "uint16")
