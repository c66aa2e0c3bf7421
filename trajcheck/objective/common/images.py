"""Images with their classes: a folder of them by class, arrays in one file, or tables of the library `datasets`.

Images of bytes become pixel values as preprocessor_config.json beside config.json says (resized, cropped, rescaled,
normalised; without the file: divided by 255), by Pillow where they are resized or decoded; arrays of floating numbers
are pixel values already.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trajcheck.errors import ObjectiveError, TrajcheckError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.opening import opened, read_bytes
from trajcheck.files.prints import hash_file
from trajcheck.files.safetensors_header import read_header
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.objective.common.data_tables import columns_of, is_tables, table_files
from trajcheck.objective.common.preprocessing import Preprocessing, decoded
from trajcheck.readable import one_line, some_of

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")

#: Bytes of the arrays of one file, and of one picture's file.
MOST_ARRAYS, MOST_PICTURE = 2_000_000_000, 200_000_000

#: Names of arrays, and columns, by which images and their classes go.
IMAGES, LABELS = ("images", "image", "pixel_values", "x", "img"), ("labels", "label", "y")


class Images:
    """So many images with the numbers of their classes; each is made into pixel values when it is asked for."""

    def __init__(self, labels: np.ndarray, preprocessing: Preprocessing, source: str) -> None:
        self.labels, self._preprocessing, self._source = labels, preprocessing, source

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, places: Sequence[int]) -> np.ndarray:
        """[images, channels, height, width], float32, of images at these places. Raises ObjectiveError."""
        found = [self._one(place) for place in places]
        if len({each.shape for each in found}) > 1:
            shapes = some_of([str(list(shape)) for shape in sorted({each.shape for each in found})])
            raise ObjectiveError(
                f"--data {self._source}: its images have the shapes {shapes}, and no preprocessor_config.json says to "
                "which size they are brought"
            )
        return np.stack(found)

    def _one(self, place: int) -> np.ndarray:
        raise NotImplementedError


class ImageFiles(Images):
    """Pictures in files."""

    def __init__(self, files: Sequence[Path], labels: np.ndarray, preprocessing: Preprocessing, source: str) -> None:
        super().__init__(labels, preprocessing, source)
        self._files = files

    def _one(self, place: int) -> np.ndarray:
        path = self._files[place]
        try:
            data = read_bytes(path, MOST_PICTURE)
        except OSError as error:
            raise ObjectiveError(f"{path}: cannot be read: {error.strerror}") from error
        return self._preprocessing.of_bytes(decoded(data, str(path)))


class ImageArrays(Images):
    """Arrays, [images, height, width, channels] or [images, channels, height, width], or pictures' files as bytes."""

    def __init__(self, images: Any, labels: np.ndarray, preprocessing: Preprocessing, source: str) -> None:
        super().__init__(labels, preprocessing, source)
        self._images = images

    def _one(self, place: int) -> np.ndarray:
        image = self._images[place]
        if isinstance(image, bytes):
            return self._preprocessing.of_bytes(decoded(image, f"{self._source}, image {place}"))
        if image.dtype.kind == "f":
            return np.asarray(image, np.float32)
        if image.dtype != np.uint8:
            raise ObjectiveError(
                f"--data {self._source}: its images are {image.dtype}; expected bytes, uint8, or floating pixel values"
            )
        return self._preprocessing.of_bytes(image)


def open_images(path: Path, preprocessing: Preprocessing, classes: dict[str, int]) -> tuple[Images, dict[str, str]]:
    """The images of a folder or file, and the hash of each file that they are made of; `classes` are the model's, by
    the names in its config.json, empty where it names none. Raises ObjectiveError."""
    try:
        if path.is_dir() and not table_files(path):
            return _of_folder(path, preprocessing, classes)
        files = table_files(path) if path.is_dir() else [path]
        if all(map(is_tables, files)):
            images, labels = _of_tables(files)
        elif path.suffix == ".npz":
            images, labels = _of_npz(path)
        elif path.suffix == ".safetensors":
            images, labels = _of_safetensors(path)
        else:
            raise ObjectiveError(
                f"--data {path}: expected a folder of classes with pictures, an .npz or .safetensors file of images "
                "and labels, or arrow or parquet files"
            )
    except TrajcheckError as error:
        raise ObjectiveError(str(error)) from error
    except (OSError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ObjectiveError(f"--data {path}: cannot be read: {one_line(str(error), 200)}") from error
    numbers = np.asarray(labels)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or len(numbers) != len(images):
        raise ObjectiveError(
            f"--data {path}: its labels are {numbers.dtype} of shape {list(numbers.shape)} for {len(images)} images; "
            "expected one number of a class for each"
        )
    sources = {str(file): hash_file(file) for file in files}
    return ImageArrays(images, numbers.astype(np.int64), preprocessing, str(path)), sources


def _of_folder(path: Path, preprocessing: Preprocessing, classes: dict[str, int]) -> tuple[Images, dict[str, str]]:
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    names = [folder.name for folder in folders]
    if not folders:
        raise ObjectiveError(f"--data {path}: holds no folder of a class; expected {path}/CLASS/picture.png")
    if classes and (strange := [name for name in names if name not in classes]):
        raise ObjectiveError(
            f"--data {path}: its folders {one_line(some_of(strange), 200)} are no classes of config.json, which are "
            f"{one_line(some_of(list(classes)), 200)}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for number, folder in enumerate(folders):
        pictures = sorted(each for each in _below(folder) if each.suffix.lower() in PICTURES)
        files += pictures
        labels += [classes.get(folder.name, number)] * len(pictures)
    if not files:
        raise ObjectiveError(f"--data {path}: holds no picture ({', '.join(PICTURES)})")
    sources = {str(file): hash_file(file) for file in files}
    return ImageFiles(files, np.array(labels, np.int64), preprocessing, str(path)), sources


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder, and in those inside it, without following links."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))
        else:
            yield Path(entry.path)


def _of_npz(path: Path) -> tuple[Any, Any]:
    with opened(path) as handle:
        with zipfile.ZipFile(handle) as archive:
            total = sum(each.file_size for each in archive.infolist())
        if total > MOST_ARRAYS:
            raise ObjectiveError(f"--data {path}: its arrays take {total:,} bytes; expected {MOST_ARRAYS:,} at most")
        handle.seek(0)
        arrays = {}
        with zipfile.ZipFile(handle) as archive:
            for entry in archive.infolist():
                # a header in a member may ask for more than the member holds: bytes first, then the array in them
                data = archive.read(entry)
                arrays[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(
                    io.BytesIO(data), allow_pickle=False
                )
    return _named(path, arrays, IMAGES), _named(path, arrays, LABELS)


def _of_safetensors(path: Path) -> tuple[Any, Any]:
    file = read_header(str(path))
    extents = file.extents({name: name for name in file.layout.specs})
    with ExtentReader() as reader:
        arrays = {name: read_tensor(reader, extents[name]) for name in extents if name in (*IMAGES, *LABELS)}
    images, labels = _named(path, arrays, IMAGES), _named(path, arrays, LABELS)
    return (images.float() if images.is_floating_point() else images).numpy(), labels.numpy()


def _of_tables(files: Sequence[Path]) -> tuple[list[Any], list[int]]:
    images, labels = [], []
    for file in files:
        for image, label in columns_of(file, [IMAGES, LABELS]):
            images.append(image["bytes"] if isinstance(image, dict) and image.get("bytes") else np.asarray(image))
            labels.append(label)
    return images, labels


def _named(path: Path, arrays: dict[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        if name in arrays:
            return arrays[name]
    there = one_line(some_of(sorted(arrays), 6), 200)
    raise ObjectiveError(f"--data {path}: has no array {' or '.join(names[:3])}; it has {there}")
