"""Rows of arrow and parquet files, as the library `datasets` keeps them, read by pyarrow where it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trajcheck.errors import ObjectiveError
from trajcheck.files.opening import opened
from trajcheck.readable import one_line, some_of

KINDS = (".arrow", ".parquet")

#: Rows of a parquet file that are in memory at once.
_ROWS = 1024


def is_tables(path: Path) -> bool:
    return path.suffix in KINDS


def table_files(folder: Path) -> list[Path]:
    """The tables in a folder, or in its folder `data`, in the order of their names."""
    places = (folder, folder / "data")
    found = [sorted(each for each in place.glob("*") if is_tables(each)) for place in places if place.is_dir()]
    return next((files for files in found if files), [])


def table_rows(file: Path, names: Sequence[str]) -> Iterator[Any]:
    """The values of the first of some columns that the table has, row by row."""
    for (value,) in columns_of(file, [names]):
        yield value


def columns_of(file: Path, wanted: Sequence[Sequence[str]]) -> Iterator[tuple[Any, ...]]:
    """Row by row the values of columns, of each the first of some names that the table has. Raises ObjectiveError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ObjectiveError(
            f"{file}: arrow and parquet files are read by pyarrow, which is not installed: pip install trajcheck[data]"
        ) from error
    try:
        with opened(file) as handle:
            if file.suffix == ".parquet":
                table = parquet.ParquetFile(handle)
                chosen = _chosen(file, table.schema_arrow.names, wanted)
                batches = table.iter_batches(_ROWS, columns=list(dict.fromkeys(chosen)))
            else:
                reader = _arrow(pyarrow, handle)
                chosen, batches = _chosen(file, reader.schema.names, wanted), reader
            for batch in batches:
                yield from zip(*(batch.column(name).to_pylist() for name in chosen), strict=True)
    except (OSError, pyarrow.ArrowException) as error:
        raise ObjectiveError(f"{file}: cannot be read: {one_line(str(error), 200)}") from error


def _arrow(pyarrow: Any, handle: Any) -> Any:
    """A stream, as datasets writes it, or a file of arrow's."""
    try:
        return pyarrow.ipc.open_stream(handle)
    except pyarrow.ArrowInvalid:
        handle.seek(0)
        whole = pyarrow.ipc.open_file(handle)
        return pyarrow.RecordBatchReader.from_batches(
            whole.schema, (whole.get_batch(number) for number in range(whole.num_record_batches))
        )


def _chosen(file: Path, there: Sequence[str], wanted: Sequence[Sequence[str]]) -> list[str]:
    found = [next((name for name in names if name in there), None) for names in wanted]
    for name, names in zip(found, wanted, strict=True):
        if name is None:
            raise ObjectiveError(
                f"{file}: has no column {' or '.join(names)}; its columns are {one_line(some_of(list(there), 6), 200)}"
            )
    return [name for name in found if name is not None]
