from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vat_explain import files
from vat_explain.errors import BundleError, DataError
from vat_explain.files import check_replaceable, make_folder, set_aside, write_atomically, writing_directory

# Kills itself at each call to the operating system in turn, until a whole replacement goes through.
KILLED_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
from vat_explain import files

target, exchange = Path(sys.argv[1]), sys.argv[2] == "exchange"
if not exchange:
    files._exchange = lambda one, other: False

def replace(content):
    with files.writing_directory(target, what="test", replaceable=lambda place: True) as directory:
        for name in ("a", "folder/b"):
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(content)

def read(place):
    return {(place / name).read_text() for name in ("a", "folder/b")}

kills = 0
while True:
    replace("old")
    child = os.fork()
    if child == 0:
        events = 0
        def count(event, _):
            global events
            if event in ("open", "ctypes.dlsym") or event.startswith(("os.", "shutil.")):
                events += 1
                if events > kills:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        replace("new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    place = target
    if not target.exists():
        assert not exchange, "the target is gone"
        place = files.set_aside(target)
    assert read(place) in ({"old"}, {"new"}), read(place)
    if status == 0:
        break
    kills += 1
    if kills % 2:  # the rest is cleared away after two kills as after one
        replace("old")
        assert [entry.name for entry in target.parent.iterdir()] == [target.name]
print(kills)
"""


def anything(place: Path) -> bool:
    return True


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def put(target: Path, content: str) -> None:
    with writing_directory(target, what="test", replaceable=anything) as directory:
        (directory / "a").write_text(content)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_anywhere_leaves_the_old_or_the_new(tmp_path: Path, way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE, str(tmp_path / "t"), way], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_an_error_in_the_block_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path / "t", "old")

    def fail() -> None:
        with writing_directory(tmp_path / "t", what="test", replaceable=anything) as directory:
            (directory / "a").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "t" / "a").read_text() == "old"
    assert names(tmp_path) == ["t"]


def test_the_kind_of_error_is_the_callers(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "own").write_text("")
    for kind in (DataError, BundleError):
        with pytest.raises(kind, match="not part of a thing"):
            check_replaceable(tmp_path / "t", what="thing", replaceable=lambda place: False, error=kind)
    place = tmp_path / "t" / "own" / "x"
    with (
        pytest.raises(BundleError, match=r"cannot write the test .*/own/x: File exists; .*unchanged; check"),
        writing_directory(place, what="test", replaceable=anything, error=BundleError),
    ):
        pass


def test_what_is_set_aside_is_found_and_brought_back(tmp_path: Path) -> None:
    put(tmp_path / "t", "old")
    aside = tmp_path / ".t.0123456789abcdef.old"
    (tmp_path / "t").rename(aside)
    assert set_aside(tmp_path / "t") == aside
    with pytest.raises(DataError), writing_directory(tmp_path / "t", what="test", replaceable=lambda place: False):
        pass
    assert (tmp_path / "t" / "a").read_text() == "old"
    assert set_aside(tmp_path / "t") is None
    assert set_aside(tmp_path / "nowhere" / "t") is None


def test_a_failed_second_rename_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "t", "old")
    rename = Path.rename

    def fail_for_the_new(path: Path, place: Path) -> Path:
        if path.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        return rename(path, place)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(DataError, match="No space left on device; what was there before is unchanged"):
        put(tmp_path / "t", "new")
    assert (tmp_path / "t" / "a").read_text() == "old"
    assert names(tmp_path) == ["t"]


def test_another_process_is_not_disturbed(tmp_path: Path) -> None:
    """While one writes, another to the same place clears away only what nobody holds."""
    (tmp_path / ".t.0123456789abcdef.tmp").mkdir()
    (tmp_path / ".t.notours.tmp").mkdir()
    entered, go = threading.Event(), threading.Event()

    def slowly() -> None:
        with writing_directory(tmp_path / "t", what="test", replaceable=anything) as directory:
            entered.set()
            go.wait(10)
            (directory / "a").write_text("slow")

    thread = threading.Thread(target=slowly)
    thread.start()
    entered.wait(10)
    put(tmp_path / "t", "quick")
    assert (tmp_path / "t" / "a").read_text() == "quick"
    go.set()
    thread.join()
    assert (tmp_path / "t" / "a").read_text() == "slow"
    assert names(tmp_path) == [".t.notours.tmp", "t"]


def test_permissions_are_those_of_any_new_directory(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    put(tmp_path / "t", "new")
    assert (tmp_path / "t").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges directories in one step")
def test_directories_change_places_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / name, name)
    assert files._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "a").read_text() == "b"
    with pytest.raises(FileNotFoundError):
        files._exchange(tmp_path / "a", tmp_path / "missing")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot make the folder .*file/b"):
        make_folder(tmp_path / "file" / "b")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomically(path, "Straße")
    assert path.read_bytes() == "Straße".encode()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == "Straße".encode()
    assert names(tmp_path) == ["f"]
