"""The model library: names, adding once, and what a killed `add` leaves behind."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from transom.backends import manifest
from transom.backends.library import ModelLibrary, check_name, default_name
from transom.errors import ModelRefused


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    return ModelLibrary(tmp_path / "models")


def write_root(source: str, destination: Path, progress: manifest.Progress) -> None:
    """Stands in for `engine.convert.convert`: the source's name decides the weights."""
    destination.mkdir()
    (destination / "config.json").write_text('{"architectures": ["ToyForCausalLM"]}')
    (destination / "tokenizer.json").write_text("{}")
    save_file({"w": np.full(4, len(source), dtype=np.float32)}, destination / "model.safetensors")
    progress("writing weights", 1.0)


def fail_halfway(source: str, destination: Path, progress: manifest.Progress) -> None:
    write_root(source, destination, progress)
    raise ModelRefused("the source ended early")


@pytest.mark.parametrize(
    "name", ["", "-a", ".hidden", "A", "a/b", "..", "a b", "a" * 97, "ü", "a\n", ".adding-x"]
)
def test_a_name_that_is_no_slug_is_refused(library: ModelLibrary, name: str) -> None:
    with pytest.raises(ModelRefused, match="cannot be a model's name"):
        library.add("toy", name, convert=write_root)


@pytest.mark.parametrize("name", ["a", "0", "smollm2-135m-instruct", "gpt_2.v1", "a" * 96])
def test_a_slug_is_a_name(name: str) -> None:
    assert check_name(name) == name


def test_an_unknown_model_is_refused_with_the_names_that_are_known(library: ModelLibrary) -> None:
    with pytest.raises(ModelRefused, match="none yet"):
        library.path("toy")
    library.add("one", convert=write_root)
    library.add("three", convert=write_root)
    for name in ("toy", "../models/one", ""):
        with pytest.raises(ModelRefused, match="known: one, three"):
            library.path(name)


def test_another_model_under_a_held_name_is_refused(library: ModelLibrary) -> None:
    held = library.add("one", "toy", convert=write_root)
    with pytest.raises(ModelRefused, match="holds another model as 'toy'"):
        library.add("three", "toy", convert=write_root)
    assert manifest.verify(library.path("toy")) == held.manifest


def test_a_failed_conversion_leaves_no_model(library: ModelLibrary, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="ended early"):
        library.add("toy", convert=fail_halfway)
    assert library.list() == []
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_a_killed_add_leaves_no_model_and_the_next_one_cleans_up(
    library: ModelLibrary, tmp_path: Path
) -> None:
    started = multiprocessing.get_context("spawn")
    process = started.Process(target=_add_and_hang, args=(tmp_path / "models", tmp_path / "hangs"))
    process.start()
    while not (tmp_path / "hangs").exists():
        assert process.is_alive()
        process.join(0.05)
    with pytest.raises(ModelRefused, match="is at work"):
        library.add("toy", convert=write_root)
    process.kill()
    process.join()
    assert list((tmp_path / "models").glob(".adding-*"))
    assert library.list() == []
    library.add("toy", convert=write_root)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".lock", "toy"]


def test_a_folder_without_a_manifest_is_no_model(library: ModelLibrary, tmp_path: Path) -> None:
    write_root("toy", _made(tmp_path / "models") / "toy", manifest.no_progress)
    assert library.list() == []


def test_adding_a_model_writes_it_with_its_manifest(library: ModelLibrary) -> None:
    stages: list[str] = []
    added = library.add("toy", convert=write_root, progress=lambda stage, _: stages.append(stage))
    assert added.created
    assert added.path == library.path("toy")
    assert manifest.verify(added.path) == added.manifest
    assert library.list() == [("toy", added.manifest)]
    assert set(stages) == {"writing weights", "hashing"}


def test_adding_the_same_model_again_does_nothing_and_says_so(library: ModelLibrary) -> None:
    first = library.add("toy", convert=write_root)
    again = library.add("toy", convert=write_root)
    assert not again.created
    assert (again.path, again.manifest) == (first.path, first.manifest)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("/models/Some-Model.Q4_1.gguf", "some-model.q4_1"),
        ("models/folder/", "folder"),
        ("gemma3-270m", "gemma3-270m"),
    ],
)
def test_the_default_name_is_the_last_part_of_the_source(source: str, name: str) -> None:
    assert default_name(source) == name


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _add_and_hang(folder: Path, sign: Path) -> None:
    def hang(source: str, destination: Path, progress: manifest.Progress) -> None:
        write_root(source, destination, progress)
        sign.touch()
        multiprocessing.Event().wait()

    ModelLibrary(folder).add("toy", convert=hang)
