"""Explain files of any size: CSV, JSON Lines and Parquet in, Parquet out, every row once, also after being killed.

A job is cut into parts. A part is explained as a whole, written under a temporary name and renamed; a journal then
records it. Whatever happens in between is done again by the next run, with the same result under the same name.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from vat_explain.errors import DataError
from vat_explain.files import file_digest, write_atomically
from vat_explain.manifest import read_json
from vat_explain.progress import progress_bar
from vat_export.local import run_local
from vat_export.matches import find_files
from vat_export.parts import PARTS, REJECTED, Done, Settings, part_file, printable, rejected_file
from vat_export.runtime import OnnxExplainer
from vat_export.sources import Part, Source, plan

FORMAT_VERSION = 2
PART_ROWS = 2048
"""Rows of a part: what a killed run loses at most, for each worker."""

MANIFEST, JOURNAL = "manifest.json", "journal.jsonl"
_OURS = {MANIFEST, JOURNAL, PARTS, REJECTED}

Engine = Literal["local", "ray"]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes
    ----------
    rows : int
        Rows in all files; explained and rejected ones together.
    explained, rejected : int
    parts : int
        Parts in all.
    resumed : int
        Parts that an earlier run had finished.
    seconds : float
        Of this run.
    """

    rows: int
    explained: int
    rejected: int
    parts: int
    resumed: int
    seconds: float


def explain_files(
    model: str | os.PathLike[str],
    pattern: str,
    output: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    engine: Engine = "local",
    workers: int = 1,
    part_rows: int = PART_ROWS,
    resume: bool = False,
    quiet: bool = True,
) -> Summary:
    """Explain all texts of files.

    Parameters
    ----------
    model : str or path
        What `vat_export.export_onnx` wrote.
    pattern : str
        Path or pattern of CSV, JSON Lines and Parquet files.
    output : str or path
        Directory for the results: missing or empty, or that of the run to go on with.
    settings : Settings, optional
    engine : {"local", "ray"}
        Processes of this machine, or actors of a Ray cluster, which need the same file system.
    workers : int
        Processes or actors.
    part_rows : int
        Rows of an output file.
    resume : bool
        Go on with an interrupted run of the same model, files and settings.
    quiet : bool
        Show no progress.

    Raises
    ------
    BundleError, ModelError
        If the model cannot be used.
    DataError
        If a file cannot be read, the output not be written, or there is another run's output. What has been finished
        stays, and a run with `resume` goes on from there.

    Notes
    -----
    Several workers are new Python processes, which import the script that calls this: guard its call by
    ``if __name__ == "__main__":``.
    """
    began = time.monotonic()
    settings = settings or Settings()
    for name, value in (("workers", workers), ("part_rows", part_rows), ("top_k", settings.top_k)):
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}; give at least 1")
    place = Path(output)
    run = _engine(engine)
    if place.resolve().is_relative_to(Path(model).resolve()):
        raise DataError(f"the output {place} lies in the model {model}, which would be damaged; name another directory")
    files = find_files(pattern, apart_from=place)
    explainer = OnnxExplainer(model, threads=None if workers == 1 else 1)
    with _claimed(place):
        _check_place(place, resume=resume)
        sources = _plan(files, settings, part_rows, quiet=quiet)
        job = {
            "format_version": FORMAT_VERSION,
            "export": explainer.digest,
            "settings": asdict(settings),
            "part_rows": part_rows,
            "inputs": [{"path": printable(s.path), "sha256": s.sha256, "rows": _rows(s.parts)} for s in sources],
        }
        parts = [part for source in sources for part in source.parts]
        done = _begin(place, job)
        resumed = len(done)
        left = [part for part in parts if part.number not in done]
        total = _rows(parts)
        with progress_bar("explaining", total, quiet=quiet) as bar, _opened(place / JOURNAL) as journal:
            started, rows = time.monotonic(), 0
            bar.advance(total - _rows(left))

            def advance(count: int) -> None:
                nonlocal rows
                rows += count
                bar.advance(count, rate=f"{rows / (time.monotonic() - started):.0f} texts/s")

            for result in run(explainer, Path(model).absolute(), left, settings, place.absolute(), workers, advance):
                _record(journal, result)
                done[result.part] = result
        finished = [done[part.number] for part in parts]
        explained, rejected = sum(d.rows for d in finished), sum(d.rejected for d in finished)
        counts = {"rows": total, "explained": explained, "rejected": rejected}
        _write_manifest(place, job | {"complete": True, **counts, "parts": [d.to_dict() for d in finished]})
        (place / JOURNAL).unlink(missing_ok=True)
    return Summary(**counts, parts=len(parts), resumed=resumed, seconds=time.monotonic() - began)


def _engine(name: Engine) -> Callable[..., Iterator[Done]]:
    if name == "ray":
        from vat_export.ray import run_ray

        return run_ray
    if name != "local":
        raise DataError(f"there is no engine {name!r}; choose local or ray")
    return run_local


def _plan(files: Sequence[str], settings: Settings, part_rows: int, *, quiet: bool) -> list[Source]:
    sizes = sum(Path(path).stat().st_size for path in files)
    with progress_bar("reading files", sizes, quiet=quiet) as bar:
        return plan(files, settings.columns, part_rows, bar.advance)


def _rows(parts: Sequence[Part]) -> int:
    return sum(part.rows for part in parts)


@contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """Make the output directory, and keep other runs out of it while this one lives."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"cannot write to {output}: {error.strerror}; name another directory") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another run writes to {output}; wait for it, or name another directory") from None
        except OSError:  # some network file systems lock no directories
            pass
        yield
    finally:
        os.close(descriptor)


def _present(output: Path) -> set[str]:
    return {path.name for path in output.iterdir() if not _is_temporary(path)}


def _check_place(output: Path, *, resume: bool) -> None:
    """Refuse, before anything is read, a directory that cannot be written into."""
    present = _present(output)
    if present and not resume:
        raise DataError(f"{output} is not empty; pass --resume to go on with its run, or name another directory")
    strangers = sorted(present - _OURS)
    if strangers or (present and MANIFEST not in present):
        raise DataError(f"{output} holds {strangers or sorted(present)}, and no run to go on with; name another one")


def _begin(output: Path, job: dict[str, Any]) -> dict[int, Done]:
    """Prepare the output directory; return the parts that an earlier run finished."""
    if not _present(output):
        _write_manifest(output, job | {"complete": False})
    earlier = read_json(output / MANIFEST)[0]
    differing = [name for name, value in job.items() if earlier.get(name) != value]
    if "format_version" in differing:
        raise DataError(f"{output} is of a run of another version of vat-explain; name another directory")
    if differing:
        raise DataError(
            f"{output} is of a run with other {', '.join(differing)}; use the same model, files and settings to go on "
            "with it, or name another directory"
        )
    done = {entry["part"]: Done(**entry) for entry in earlier.get("parts", [])} or _read_journal(output)
    try:
        for folder in (output, output / PARTS, output / REJECTED):
            folder.mkdir(exist_ok=True)
            for path in folder.iterdir():
                if _is_temporary(path):
                    path.unlink()
    except OSError as error:
        raise DataError(f"cannot write to {output}: {error.strerror}; check its permissions and its room") from error
    whole = {number: entry for number, entry in done.items() if _is_whole(output, entry)}
    write_atomically(output / JOURNAL, "".join(_line(entry) for entry in whole.values()))
    if len(whole) < len(done):
        _write_manifest(output, job | {"complete": False})
    return whole


def _is_whole(output: Path, entry: Done) -> bool:
    """Tell whether what was recorded of a part is still there as it was written."""
    files = {part_file(output, entry.part): entry.sha256}
    if entry.rejected:
        files[rejected_file(output, entry.part)] = entry.rejected_sha256
    return all(path.exists() and file_digest(path) == digest for path, digest in files.items())


def _read_journal(output: Path) -> dict[int, Done]:
    """Return the recorded parts; the last line may be torn."""
    path = output / JOURNAL
    done: dict[int, Done] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry = Done(**json.loads(line))
        except (ValueError, TypeError):
            break
        done[entry.part] = entry
    return done


@contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    """Open the journal without a buffer, which would be written once more when a full disk has ended the job."""
    try:
        journal = FileIO(path, "a")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; check its permissions and its room") from error
    with journal:
        yield journal


def _record(journal: FileIO, entry: Done) -> None:
    line = _line(entry).encode()
    try:
        while line:
            line = line[journal.write(line) :]
        os.fsync(journal.fileno())
    except OSError as error:
        raise DataError(
            f"cannot write {os.fsdecode(journal.name)}: {error.strerror}; make room and go on with --resume"
        ) from error


def _line(entry: Done) -> str:
    return json.dumps(entry.to_dict()) + "\n"


def _write_manifest(output: Path, content: dict[str, Any]) -> None:
    write_atomically(output / MANIFEST, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"
