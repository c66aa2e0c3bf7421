"""Images of folders and arrays as pixel values, against numpy and Pillow in the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from trajcheck.errors import ObjectiveError
from trajcheck.objective.common.image_batches import ImageBatches
from trajcheck.objective.common.images import open_images
from trajcheck.objective.common.model_folder import ModelFolder
from trajcheck.objective.common.preprocessing import read_preprocessing

Image: Any = pytest.importorskip("PIL.Image")

SETTINGS: dict[str, Any] = {
    **{"do_resize": True, "size": {"height": 6, "width": 4}, "resample": 2, "do_rescale": True},
    **{"rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 2.0]},
}


def settings(folder: Path, **more: Any) -> ModelFolder:
    (folder / "preprocessor_config.json").write_text(json.dumps({**SETTINGS, **more}))
    return ModelFolder(folder)


def pictures(folder: Path, names: tuple[str, ...] = ("cat", "dog")) -> dict[str, np.ndarray]:
    stream, found = np.random.default_rng(0), {}
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            pixels = stream.integers(0, 256, (9, 7, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
            found[f"{name}/{number}"] = pixels
    return found


def prepared(pixels: np.ndarray) -> np.ndarray:
    resized = np.asarray(Image.fromarray(pixels).resize((4, 6), 2)).astype(np.float64) / 255
    return ((resized - SETTINGS["image_mean"]) / SETTINGS["image_std"]).transpose(2, 0, 1)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    known = pictures(tmp_path / "data")
    images, sources = open_images(tmp_path / "data", read_preprocessing(settings(tmp_path)), {"dog": 0, "cat": 5})
    assert images.labels.tolist() == [5, 5, 0, 0] and len(sources) == 4
    wanted = np.stack([prepared(each) for each in known.values()])
    np.testing.assert_allclose(images.pixels(range(4)), wanted, rtol=1e-6, atol=1e-7)
    batches = ImageBatches(images, 3, 6, "data")
    assert [batches.weight(batch) for batch in batches] == [3, 1]
    drawn, places = batches.drawn(1, 0)
    np.testing.assert_allclose(drawn[0]["pixel_values"].numpy(), wanted[places[0]], rtol=1e-6, atol=1e-7)
    assert drawn[0]["labels"].tolist() == images.labels[places[0]].tolist()
    assert open_images(tmp_path / "data", read_preprocessing(ModelFolder(tmp_path)), {})[0].labels.tolist() == [
        *(0, 0, 1, 1)
    ]
    with pytest.raises(ObjectiveError, match=r"its folders dog are no classes of config\.json, which are cat"):
        open_images(tmp_path / "data", read_preprocessing(ModelFolder(tmp_path)), {"cat": 0})
    with pytest.raises(ObjectiveError, match="its labels are 0 to 5, and the model has 5 classes"):
        ImageBatches(images, 3, 5, "data")
    with pytest.raises(ObjectiveError, match="has 4 images, and --probe 2 of --batch-size 3 takes 6"):
        batches.drawn(2, 0)


def test_arrays(tmp_path: Path) -> None:
    stream = np.random.default_rng(1)
    pixels, labels = stream.integers(0, 256, (3, 9, 7, 3), np.uint8), np.array([0, 1, 0])
    preprocessing = read_preprocessing(settings(tmp_path))
    np.savez(tmp_path / "last.npz", images=pixels, labels=labels)
    save_file({"images": pixels.transpose(0, 3, 1, 2).copy(), "labels": labels}, tmp_path / "first.safetensors")
    for name in ("last.npz", "first.safetensors"):
        images, _ = open_images(tmp_path / name, preprocessing, {})
        wanted = np.stack([prepared(each) for each in pixels])
        np.testing.assert_allclose(images.pixels([0, 1, 2]), wanted, rtol=1e-6, atol=1e-7)
    values = stream.normal(size=(3, 1, 5, 5)).astype(np.float32)
    np.savez(tmp_path / "values.npz", pixel_values=values, label=labels)
    assert (open_images(tmp_path / "values.npz", preprocessing, {})[0].pixels([2, 0]) == values[[2, 0]]).all()


def test_shorter_side_and_crop(tmp_path: Path) -> None:
    path = settings(tmp_path, size={"shortest_edge": 14}, do_center_crop=True, crop_size=10, do_normalize=False)
    pixels = np.random.default_rng(2).integers(0, 256, (9, 7, 3), np.uint8)
    resized = np.asarray(Image.fromarray(pixels).resize((14, 18), 2))
    found = read_preprocessing(path).of_bytes(pixels)
    np.testing.assert_allclose(found, resized[4:14, 2:12].transpose(2, 0, 1) / 255, rtol=1e-6)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    preprocessing = read_preprocessing(ModelFolder(tmp_path))
    np.savez(tmp_path / "objects.npz", images=np.array([{"a": 1}], object), labels=np.array([0]))
    np.savez(tmp_path / "lacks.npz", pictures=np.zeros(3), labels=np.zeros(3, int))
    np.savez(tmp_path / "short.npz", images=np.zeros((3, 2, 2, 3), np.uint8), labels=np.zeros(2, int))
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "objects.npz": "allow_pickle",
        "lacks.npz": "has no array images or image or pixel_values; it has labels, pictures",
        "short.npz": r"of shape \[2\] for 3 images",
        "cut.npz": "cannot be read",
        "empty": "holds no folder of a class",
        "config.json": "expected a folder of classes",
    }.items():
        with pytest.raises(ObjectiveError, match=words):
            open_images(tmp_path / name, preprocessing, {})
    for wrong in ({"size": {"height": 10**9, "width": 4}}, {"image_std": [0.0]}, {"size": {"side": 3}}):
        with pytest.raises(ObjectiveError, match=r"preprocessor_config\.json: cannot be used"):
            read_preprocessing(settings(tmp_path, **wrong))
    with pytest.raises(ObjectiveError, match=r"no preprocessor_config\.json says to which size"):
        for height in (4, 5):
            (tmp_path / "mixed" / "a").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, height)).save(tmp_path / "mixed" / "a" / f"{height}.png")
        open_images(tmp_path / "mixed", preprocessing, {})[0].pixels([0, 1])
