from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vat_explain.cli import app
from vat_explain.errors import BundleError
from vat_serve import package as module
from vat_serve.archive import copy_archive, model_name, read_settings
from vat_serve.package import package
from vat_serve.schema import schema


def test_archives_are_the_same_bytes_each_time(bundle, tmp_path):
    one, other = package(bundle, tmp_path / "a", "m"), package(bundle, tmp_path / "b", "m")
    assert one.read_bytes() == other.read_bytes()


def test_an_archive_holds_the_model_and_no_code(bundle, store):
    with zipfile.ZipFile(store / "tiny.mar") as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    files = {f"bundle/{path.relative_to(bundle).as_posix()}" for path in bundle.rglob("*") if path.is_file()}
    assert names == {"MAR-INF/MANIFEST.json", "model-config.yaml"} | files
    assert manifest["model"]["handler"] == "vat_serve.handler"
    assert not any(name.endswith((".py", ".pt", ".bin", ".pkl")) for name in names)


def test_the_name_comes_from_the_folder(bundle, tmp_path):
    assert model_name(package(bundle, tmp_path)) == bundle.name


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", ".hidden", "ä", "x" * 200, "a:predict"])
def test_names_that_no_address_can_hold_are_refused(bundle, tmp_path, name):
    with pytest.raises(BundleError, match="name"):
        package(bundle, tmp_path, name)
    assert not any(tmp_path.iterdir())


def test_a_damaged_bundle_is_not_packaged(bundle, tmp_path):
    damaged, store = tmp_path / "damaged", tmp_path / "store"
    shutil.copytree(bundle, damaged)
    path = damaged / "learner" / "config.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match="SHA-256"):
        package(damaged, store)
    assert not list(store.iterdir())


def test_an_archive_that_does_not_answer_is_not_put_in_place(bundle, tmp_path, monkeypatch):
    package(bundle, tmp_path, "m")
    before = (tmp_path / "m.mar").read_bytes()
    monkeypatch.setattr(module, "_TRIAL", " ")
    with pytest.raises(BundleError, match="does not answer"):
        package(bundle, tmp_path, "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m.mar"]
    assert (tmp_path / "m.mar").read_bytes() == before


@pytest.mark.parametrize(("backend", "match"), [("onnx", "vat-explain export"), (None, "holds no model")])
def test_folders_for_another_backend_or_none(bundle, tmp_path, backend, match):
    with pytest.raises(BundleError, match=match):
        package(bundle if backend else tmp_path, tmp_path / "store", backend=backend)


@pytest.mark.parametrize("place", [".", "store"])
def test_a_store_in_the_model_is_refused(bundle, tmp_path, place):
    model = shutil.copytree(bundle, tmp_path / "model")
    with pytest.raises(BundleError, match="would hold itself"):
        package(model, model / place)


def test_settings_can_be_changed_in_a_copy(store, tmp_path):
    copy = tmp_path / "tiny.mar"
    copy_archive(store / "tiny.mar", copy, {"batchSize": 3})
    assert read_settings(copy) == {**read_settings(store / "tiny.mar"), "batchSize": 3}
    with zipfile.ZipFile(store / "tiny.mar") as old, zipfile.ZipFile(copy) as new:
        assert old.namelist() == new.namelist()
        assert all(old.read(name) == new.read(name) for name in old.namelist() if name != "model-config.yaml")


def test_files_that_are_no_archives_of_ours_are_refused(tmp_path):
    path = tmp_path / "x.mar"
    path.write_bytes(b"PK")
    with pytest.raises(BundleError, match="no model archive"):
        model_name(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "x", "handler": "x.py"}}))
    with pytest.raises(BundleError, match="not made by vat-explain"):
        model_name(path)


def test_the_command_line(bundle, tmp_path):
    result = CliRunner().invoke(app, ["package", str(bundle), "--output", str(tmp_path), "--name", "m", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["archive"] == str(tmp_path / "m.mar")
    refused = CliRunner().invoke(app, ["package", str(tmp_path), "--output", str(tmp_path)])
    assert refused.exit_code == 2
    assert "holds no model" in refused.stderr


def test_the_published_configuration_is_that_of_the_package():
    root = Path(__file__).parents[2]
    assert (root / "serve" / "config").resolve() == root / "serve" / "vat_serve" / "config"
    assert schema("answer")["title"]
