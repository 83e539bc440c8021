"""Writing files and directories so that a reader sees the old content or the new, never a part."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vat_explain.errors import DataError, VatExplainError

_AT_FDCWD = -100  # Linux: paths are relative to the current directory
_RENAME_EXCHANGE = 2


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, where they are missing.

    Raises
    ------
    DataError
        If it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; name another place") from error
    return folder


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file by way of a temporary one beside it; text is written as UTF-8.

    Raises
    ------
    DataError
        If the folder is missing or not writable, or the disk is full; a file that was there before is untouched.
    """
    with writing_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a temporary file to write, and put it in the place of another one when the block ends.

    Parameters
    ----------
    path : str or path
        The file to write; one that is there stays as it is when the block raises.

    Raises
    ------
    DataError
        If the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; check that its folder exists, is writable and has room"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_directory(
    target: str | os.PathLike[str],
    *,
    what: str,
    replaceable: Callable[[Path], bool],
    error: type[VatExplainError] = DataError,
) -> Iterator[Path]:
    """Write a directory beside its place and put it there, complete, when the block ends.

    The directory that was there before stays as it is until then; the two change places in one step where the system
    can do that (Linux), and in two renames elsewhere. When the block raises, nothing has changed. What a killed
    process left beside the target is cleared away by the next call.

    Parameters
    ----------
    target : str or path
        Where the directory is to be: missing, empty, or `replaceable`. Parents are made.
    what : str
        What the directory is, for messages, such as ``"bundle"``.
    replaceable : callable
        Tells whether a directory with something in it may be replaced, and so deleted.
    error : type
        Kind of the errors raised.

    Yields
    ------
    Path
        An empty directory to write into.

    Raises
    ------
    VatExplainError
        Of the given kind, if the target may not be replaced, or something cannot be written.
    """
    place = Path(os.path.realpath(target))
    temporary = _beside(place, "tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _clear_left_over(place)
        check_replaceable(place, what=what, replaceable=replaceable, error=error)
        temporary.mkdir()
        with _locked(temporary):
            yield temporary
            _sync_tree(temporary)
            _put_in_place(temporary, place)
            _sync(place.parent)
    except OSError as problem:
        raise error(
            f"cannot write the {what} {place}: {problem.strerror or problem}; what was there before is unchanged; "
            "check that its folder is writable, has room and is no mount point"
        ) from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # unfinished, or what was in the target's place before


def check_replaceable(
    target: str | os.PathLike[str],
    *,
    what: str,
    replaceable: Callable[[Path], bool],
    error: type[VatExplainError] = DataError,
) -> None:
    """Raise the error that `writing_directory` would raise before it writes; parameters as there."""
    place = Path(os.path.realpath(target))
    if not place.exists():
        return
    if not place.is_dir():
        raise error(f"{place} is a file; name a new or empty directory for the {what}")
    if Path.cwd().is_relative_to(place):
        raise error(f"{place} is the current directory or holds it; name a directory in it for the {what}")
    if any(place.iterdir()) and not replaceable(place):
        raise error(
            f"{place} holds files that are not part of a {what}, which replacing it would delete; "
            f"name a new or empty directory for the {what}"
        )


def set_aside(target: str | os.PathLike[str]) -> Path | None:
    """Return the directory that a killed `writing_directory` left under another name, if its place is empty.

    This happens only where two directories cannot change places in one step; the next `writing_directory` brings it
    back.
    """
    place = Path(os.path.realpath(target))
    if place.exists() or not place.parent.is_dir():
        return None
    return next(_left_over(place, "old"), None)


def _beside(place: Path, kind: str) -> Path:
    return place.with_name(f".{place.name}.{secrets.token_hex(8)}.{kind}")


def _left_over(place: Path, kind: str) -> Iterator[Path]:
    beginning, end = f".{place.name}.", f".{kind}"
    for entry in sorted(place.parent.iterdir()):
        token = entry.name[len(beginning) : -len(end)]
        if entry.name.startswith(beginning) and entry.name.endswith(end) and len(token) == 16 and entry.is_dir():
            yield entry


def _clear_left_over(place: Path) -> None:
    """Bring back what was set aside, and delete what no living process holds locked."""
    aside = set_aside(place)
    if aside is not None:
        aside.rename(place)
    for kind in ("tmp", "old"):
        for entry in _left_over(place, kind):
            with suppress(OSError), _locked(entry, wait=False):
                shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _locked(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock, which ends with the process, that tells others that the directory is in use."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if wait:
            with suppress(OSError):  # some network file systems lock no directories; none is deleted there either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _put_in_place(temporary: Path, place: Path) -> None:
    if not place.exists() or not any(place.iterdir()):
        temporary.rename(place)  # POSIX replaces an empty directory
    elif not _exchange(temporary, place):
        aside = _beside(place, "old")
        place.rename(aside)
        try:
            temporary.rename(place)
        except OSError:
            aside.rename(place)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories change places in one step; return False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    if renameat2(*paths, _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync_tree(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
