"""Tokens in one stream: of a token file as nanoGPT's scripts write it, or of texts and tables of them.

A token file is read where a window lies, never whole. Texts become tokens by the archive's own tokenizer.json, which is
plain data to the library `tokenizers`; without special tokens, and each text is followed by the model's end-of-text
token where its config.json has one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trajcheck.errors import ObjectiveError
from trajcheck.files.opening import opened, read_text
from trajcheck.files.plain_json import parse_json
from trajcheck.files.prints import hash_file
from trajcheck.objective.common.config_file import ModelConfig
from trajcheck.objective.common.data_tables import is_tables, table_files, table_rows
from trajcheck.objective.common.model_folder import hash_of
from trajcheck.objective.common.names import TOKENIZER
from trajcheck.readable import one_line

#: Tokens of texts, which are held in memory; more are for a token file.
MOST_TOKENS = 500_000_000
#: Bytes of a text, or of a table of texts, that is read whole.
MOST_TEXT = 2_000_000_000

#: Tokens that are looked at to tell whether a file of 32-bit tokens is read as one of 16.
_LOOKED_AT = 4096

USE_A_TOKEN_FILE = "Write its tokens to a file of uint16 or uint32, tokens.bin, and name that"


@dataclass(frozen=True)
class TokenFile:
    """A file of little-endian numbers and nothing else."""

    path: Path
    dtype: str
    vocabulary: int

    def __len__(self) -> int:
        with opened(self.path) as file:
            return os.fstat(file.fileno()).st_size // np.dtype(self.dtype).itemsize

    def window(self, start: int, length: int) -> np.ndarray:
        """Tokens `start` to `start` + `length`, int64. Raises ObjectiveError for one beyond the vocabulary."""
        size = np.dtype(self.dtype).itemsize
        try:
            with opened(self.path) as file:
                data = os.pread(file.fileno(), length * size, start * size)
        except OSError as error:
            raise ObjectiveError(f"{self.path}: cannot be read: {error.strerror}") from error
        if len(data) != length * size:
            raise ObjectiveError(f"{self.path}: ends within the {length} tokens from token {start} on; it was longer")
        found = np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<")).astype(np.int64)
        return checked(found, self.vocabulary, f"{self.path}, read as {self.dtype} (--data-dtype)", start)


@dataclass(frozen=True)
class TokensOfTexts:
    """Tokens that are held in memory."""

    tokens: np.ndarray
    documents: int

    def __len__(self) -> int:
        return len(self.tokens)

    def window(self, start: int, length: int) -> np.ndarray:
        return self.tokens[start : start + length].astype(np.int64)


def checked(tokens: np.ndarray, vocabulary: int, source: str, start: int = 0) -> np.ndarray:
    """The tokens, each below the size of the vocabulary. Raises ObjectiveError, naming the first that is not."""
    if len(tokens) and (tokens.min() < 0 or tokens.max() >= vocabulary):
        place = int(np.argmax((tokens < 0) | (tokens >= vocabulary)))
        raise ObjectiveError(
            f"{source}: token {start + place} is {int(tokens[place])}, and the model has {vocabulary:,} tokens"
        )
    return tokens


def open_tokens(path: Path, config: ModelConfig, vocabulary: int, dtype: str | None) -> tuple[Any, dict[str, str]]:
    """The stream of a file or folder, and the hash of each file it is made of. Raises ObjectiveError."""
    try:
        if path.is_dir() or path.suffix in (".jsonl", ".json", ".txt") or is_tables(path):
            return _of_texts(path, config, vocabulary, dtype)
        return _token_file(path, vocabulary, dtype), {str(path): hash_file(path)}
    except (OSError, UnicodeDecodeError) as error:
        raise ObjectiveError(f"--data {path}: cannot be read: {one_line(str(error), 200)}") from error


def _token_file(path: Path, vocabulary: int, dtype: str | None) -> TokenFile:
    named = dtype or ("uint16" if vocabulary <= 1 << 16 else "uint32")
    size = np.dtype(named).itemsize
    with opened(path) as file:
        found = os.fstat(file.fileno()).st_size
        first = os.pread(file.fileno(), _LOOKED_AT * size, 0)
    if found % size or not found:
        raise ObjectiveError(
            f"--data {path}: has {found:,} bytes, which are no tokens of {named} (--data-dtype). Expected a file of "
            "tokens and nothing else, FILE.jsonl, FILE.txt, or a folder of them or of arrow or parquet files"
        )
    start = np.frombuffer(first, f"<u{size}")
    if named == "uint16" and len(start) >= 16 and not start[1::2].any() and start[::2].any() and dtype is None:
        raise ObjectiveError(
            f"--data {path}: every second number of uint16 is 0, as of tokens of uint32: say which with --data-dtype"
        )
    return TokenFile(path, named, vocabulary)


def _of_texts(path: Path, config: ModelConfig, vocabulary: int, dtype: str | None) -> tuple[Any, dict[str, str]]:
    if dtype is not None:
        raise ObjectiveError(f"--data {path}: is no file of tokens, for which --data-dtype {dtype} is")
    files = _files(path)
    encode = _Encoding(config, vocabulary)
    parts: list[np.ndarray] = []
    total = 0
    for file in files:
        for row in _rows(file):
            parts.append(encode.tokens(row, str(file)))
            total += len(parts[-1])
            if total > MOST_TOKENS:
                raise ObjectiveError(f"--data {path}: has more than {MOST_TOKENS:,} tokens. {USE_A_TOKEN_FILE}")
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
    sources = {str(file): hash_file(file) for file in files} | encode.files
    return TokensOfTexts(tokens, len(parts)), sources


def _files(path: Path) -> list[Path]:
    """The files of texts in a folder, or the one that was named, in the order of their names."""
    if not path.is_dir():
        return [path]
    found = table_files(path) or sorted(each for kind in ("*.jsonl", "*.txt") for each in path.glob(kind))
    if found:
        return found
    splits = sorted(each.name for each in path.iterdir() if each.is_dir() and (table_files(each) or _texts(each)))
    if splits:
        raise ObjectiveError(f"--data {path}: holds the folders {', '.join(splits[:6])}: name one of them")
    raise ObjectiveError(f"--data {path}: holds no .jsonl, .txt, .arrow or .parquet file")


def _texts(folder: Path) -> bool:
    return any(any(folder.glob(kind)) for kind in ("*.jsonl", "*.txt"))


def _rows(file: Path) -> Iterator[Any]:
    """What is one text, or one list of tokens, after the other."""
    if is_tables(file):
        yield from table_rows(file, ("input_ids", "text"))
    elif file.suffix == ".txt":
        yield read_text(file, MOST_TEXT)
    else:
        for number, line in enumerate(read_text(file, MOST_TEXT).split("\n"), start=1):
            if line.strip():
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise ObjectiveError(f"--data {file}: line {number} is not JSON ({one_line(error, 100)})") from None
                yield _field(row, f"--data {file}: line {number}")


def _field(row: Any, where: str) -> Any:
    for name in ("input_ids", "text"):
        if isinstance(row, dict) and name in row:
            return row[name]
    raise ObjectiveError(f'{where} has neither "text" nor "input_ids"')


class _Encoding:
    """From texts to tokens; lists of tokens stay as they are."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        self._config, self._vocabulary = config, vocabulary
        end = config.entries.get("eos_token_id")
        self._end = next((each for each in (end if isinstance(end, list) else [end]) if type(each) is int), None)
        self._tokenizer: Any = None
        self.files: dict[str, str] = {}  # that were read for it, with their hashes

    def tokens(self, row: Any, source: str) -> np.ndarray:
        """Those of one row, uint32. Raises ObjectiveError."""
        if isinstance(row, str):
            end = [] if self._end is None else [self._end]
            found = np.array([*self._encoded(row, source), *end], np.int64)
        else:
            found = _numbers(row, source)
        return checked(found, self._vocabulary, f"--data {source}").astype(np.uint32)

    def _encoded(self, text: str, source: str) -> Iterable[int]:
        if self._tokenizer is None:
            self._tokenizer = self._load(source)
        with _rust(f"{source}: {TOKENIZER} cannot take a text of it"):
            found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def _load(self, source: str) -> Any:
        beside = self._config.beside
        path = beside.shown(TOKENIZER)
        if not beside.holds(TOKENIZER):
            raise ObjectiveError(
                f"--data {source}: is text, and no {TOKENIZER} lies beside {self._config.path}. {USE_A_TOKEN_FILE}"
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ObjectiveError(
                "texts become tokens by the library tokenizers, which is not installed: pip install trajcheck[hf]"
            ) from error
        data = beside.read(TOKENIZER)
        text, self.files = data.decode("utf-8"), {str(path): hash_of(data)}
        with _rust(f"{path}: is no tokenizer that this version of tokenizers reads"):
            made = Tokenizer.from_str(text)
            made.no_truncation()
            made.no_padding()
        return made


def _numbers(row: Any, source: str) -> np.ndarray:
    try:
        found = np.asarray(row)
    except (ValueError, OverflowError):
        found = np.zeros((), object)
    if found.ndim != 1 or (found.dtype.kind not in "iu" and len(found)):
        raise ObjectiveError(f"--data {source}: a row is neither a text nor a list of tokens")
    return found.astype(np.int64)


@contextmanager
def _rust(words: str) -> Iterator[None]:
    """What goes wrong in the library, a panic included, which is no Exception."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise ObjectiveError(f"{words}: {type(error).__name__}: {one_line(str(error), 200)}") from error
