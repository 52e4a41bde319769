"""Where commands write: whole files, where links lead to, and never over what hfc did not make.

A folder of several files has a mark: a JSON file that lists them with their SHA-256. A file that is not listed, or was
changed since, is somebody's, and is neither replaced nor removed.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfc.errors import RunError
from hfc.progress import steps

NAMED = 5  # of what lies in a folder, in a message
LISTED, REPLACED = "hfc_files", "hfc_replaced"
SEAL = re.compile(rb"\n\S+ written by hfc; SHA-256 of what stands above: ([0-9a-f]{64})[^\n]*\n\Z")


def followed(path: Path) -> Path:
    """Where a path leads: a link is not replaced, what it points to is."""
    # Path.is_symlink raises where a folder may not be entered; that is for who opens the file.
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where a link leads to as well."""
    Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)


def part(path: Path) -> Path:
    """The temporary name beside a file or folder, of this process alone."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def in_the_way(path: Path) -> RunError:
    """The error for a file or folder that a command will not replace."""
    return RunError(
        f"{path}: is in the way: hfc did not write it, or it was changed since; move it away or name another place"
    )


def claim(folder: Path, mark: str, command: str) -> None:
    """Make a folder a command's own, by a mark in it, unless it is that already.

    Raises:
        RunError: it holds something and has no mark, or the operating system refuses.
    """
    target = followed(folder)
    with explained(folder, f"the folder of {command}"):
        if (target / mark).is_file():
            return
        refuse_used(folder, command)
        _put(target / mark, (json.dumps({"made_by": command}) + "\n").encode("utf-8"))


def refuse_used(folder: Path, command: str) -> None:
    """Raise a RunError where a folder to write is a file, or holds anything."""
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held or (folder.exists() and not folder.is_dir()):
        more = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
        holds = f" (it holds {', '.join(held[:NAMED])}{more})" if held else ""
        raise RunError(f"{folder}: exists and was not written by {command}{holds}; name a new folder")


@contextlib.contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn what the operating system refuses into a RunError; `what` is being written, as in "the run"."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and error.filename is None:  # of no file here: there is no temporary folder
            raise
        raise RunError(f"{path}: {what} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path, what: str, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary name for a file that takes the place of `path` when the block ends well.

    Args:
        path: the file; a link is followed.
        what: what is written, for an error: "the graph". Nothing of it is left when the block fails.
        ours: whether the file that is there may be replaced, as hfc wrote it.

    Raises:
        RunError: the operating system refuses, or something else is in the way.
    """
    target = followed(path)
    partial = part(target)
    with explained(path, what):
        try:
            make_folder(target.parent)
            remove(partial)
            yield partial
            if target.exists() and not (target.is_file() and ours(target)):
                raise in_the_way(path)
            partial.replace(target)
        finally:
            remove(partial)


def remove(partial: Path) -> None:
    """Remove what lies under a temporary name."""
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)


def sealed(text: str, opening: str, closing: str = "") -> str:
    """A text and below it, as a comment, that hfc wrote it, with its SHA-256: see `is_sealed`."""
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return f"{text}\n{opening} written by hfc; SHA-256 of what stands above: {digest}{closing}\n"


def is_sealed(path: Path) -> bool:
    """Whether hfc wrote a text and nobody changed it since."""
    content = path.read_bytes()
    match = SEAL.search(content)
    return match is not None and hashlib.sha256(content[: match.start()]).hexdigest().encode() == match[1]


def write_folder(folder: Path, files: Mapping[str, bytes], marks: Sequence[str], what: str) -> None:
    """Write files into a folder, of which an earlier call's are replaced or removed, and nothing else.

    Args:
        folder: the folder; a link is followed.
        files: their names in it and contents.
        marks: names of JSON objects that list files of the folder; the first is one of the files.
        what: what is written, for an error.

    Raises:
        RunError: something else is in the way, and nothing was changed; or the operating system refuses.
    """
    target, mark = followed(folder), marks[0]
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != mark}
    with explained(folder / next(iter(files)), what):
        if not target.exists():
            partial = part(target)
            remove(partial)
            try:
                make_folder(target.parent)
                partial.mkdir()
                _put_all(what, partial, {**files, mark: _marked(files[mark], digests, {})})
                partial.replace(target)
            finally:
                remove(partial)
            return
        there = _own_files(folder, target, marks, digests)
        for name in listed(target / mark).keys() - files.keys():
            if name in there:  # of an earlier call, and of no use beside the others
                (target / name).unlink()
        replaced = {name: there[name] for name in digests if name in there and there[name] != digests[name]}
        # First, as it lists both what lies there and what will: whatever stops this, all of it stays hfc's own.
        _put(target / mark, _marked(files[mark], digests, replaced))
        _put_all(what, target, {name: content for name, content in files.items() if name != mark})


def listed(mark: Path) -> dict[str, set[str]]:
    """The files that a mark lists, and the SHA-256 that each may have; none if hfc did not write it."""
    try:
        content = json.loads(mark.read_bytes())
        found: dict[str, set[str]] = {}
        for name, digest in [*content[LISTED].items(), *content.get(REPLACED, {}).items()]:
            if not Path(name).is_absolute() and ".." not in Path(name).parts:  # what lies elsewhere is not the folder's
                found.setdefault(name, set()).add(digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found


def _own_files(folder: Path, target: Path, marks: Sequence[str], digests: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each file of hfc's in a folder; raises a RunError where another stands in the way."""
    allowed: dict[str, set[str]] = {name: {digest} for name, digest in digests.items()}
    for mark in marks:
        for name, known in listed(target / mark).items():
            allowed.setdefault(name, set()).update(known)
    there: dict[str, str] = {}
    for name in (marks[0], *allowed):
        file = target / name
        if not file.exists():
            continue
        if name == marks[0]:
            own = bool(listed(file))
        elif own := file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            own = digest in allowed[name]
            there |= {name: digest} if own else {}
        if not own and (name in digests or name == marks[0]):
            raise in_the_way(folder / name)
    return there


def _marked(content: bytes, digests: Mapping[str, str], replaced: Mapping[str, str]) -> bytes:
    found: dict[str, Any] = {**json.loads(content), LISTED: dict(digests)}
    if replaced:
        found[REPLACED] = dict(replaced)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # what is no UTF-8 becomes an escape that JSON reads back


def _put_all(what: str, folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in steps(files.items(), f"writing {what}", len(files)):
        _put(folder / name, content)


def _put(path: Path, content: bytes) -> None:
    target = followed(path)
    make_folder(target.parent)
    partial = part(target)
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
