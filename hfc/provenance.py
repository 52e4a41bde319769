"""Where numbers and files come from: digests, versions, the commit, and hfc's own files.

Commands write whole files, follow links, and never replace what hfc did not make. A folder of several files has a mark:
a JSON file that lists them with their SHA-256. A file that is not listed, or was changed since, is somebody's, and is
neither replaced nor removed.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hfc import __version__
from hfc.errors import RunError, explained, in_the_way
from hfc.progress import steps

PACKAGE = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "timm", "h5py", "numpy", "pillow", "scikit-learn", "pillow-heif")
EXTRAS = ("pillow-heif",)  # of which nothing is said where they are not installed
NAMED = 5  # files of a folder that a message names
LISTED, REPLACED = "hfc_files", "hfc_replaced"
SEAL = re.compile(rb"\n\S+ written by hfc; SHA-256 of what stands above: ([0-9a-f]{64})[^\n]*\n\Z")


def canonical_json(value: object) -> str:
    """Write JSON with sorted keys and no blanks, so that equal values give equal text.

    NaN is refused with a ValueError.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """Compute the SHA-256 of a JSON value's canonical form, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogateescape")).hexdigest()


def digest_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """Compute the SHA-256 of the concatenated chunks, as 64 hexadecimal digits."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()


@functools.cache
def code_digest() -> str:
    """Compute the SHA-256 over every Python source of the package. It names the code even where there is no git."""
    return digest_sources(PACKAGE)


def digest_sources(package: Path, names: Iterable[str] = (".",)) -> str:
    """Compute the SHA-256 over the Python sources of a package.

    Args:
        package: its folder.
        names: files and folders in it; all by default.
    """
    paths = [package / name for name in names]
    sources = sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])})
    return digest([[file.relative_to(package).as_posix(), file.read_text("utf-8")] for file in sources])


@functools.cache
def git_commit() -> str:
    """Return the commit that the running code was checked out from.

    `+` is appended if files differ from it. Outside git it is "".
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True)
        return done.stdout.strip()

    try:
        if "hfc/provenance.py" not in git("ls-files", "--full-name", __file__):
            return ""  # installed inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def short(commit: str) -> str:
    """Shorten a commit for readers: its first twelve digits, and its `+`."""
    return commit[:12] + "+" * commit.endswith("+")


def code() -> dict[str, str]:
    """Return version, commit and digest of the running code."""
    return {"version": __version__, "commit": git_commit(), "digest": code_digest()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape the numbers. None of them is imported."""
    installed = {"python": platform.python_version()}
    installed |= {package: "not installed" for package in PACKAGES if package not in EXTRAS}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def followed(path: Path) -> Path:
    """Return where a path leads. A link itself is not replaced, but what it points to is."""
    # Path.is_symlink raises where a folder may not be entered; opening the file should raise that.
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where a link leads to as well."""
    Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)


def temporary(path: Path) -> Path:
    """Return the temporary name beside a file or folder, which this process alone uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def claim(folder: Path, mark: str, command: str) -> None:
    """Put a command's mark into a folder, unless it is there already.

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
def replacing(path: Path, what: str, own: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a temporary name to write to; the file then takes the place of `path`.

    Args:
        path: the file; a link is followed.
        what: what is written, for an error: "the graph". Nothing of it is left when the block fails.
        own: whether the file that is there may be replaced, as hfc wrote it.

    Raises:
        RunError: the operating system refuses, or something else is in the way.
    """
    target = followed(path)
    with explained(path, what), _placing(target) as partial:
        make_folder(target.parent)
        yield partial
        if target.exists() and not (target.is_file() and own(target)):
            raise in_the_way(path)


@contextlib.contextmanager
def _placing(target: Path) -> Iterator[Path]:
    """Give a temporary name; what is written there then takes the place of `target`."""
    partial = temporary(target)
    remove(partial)
    try:
        yield partial
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
    """Add a comment to a text: that hfc wrote it, and its SHA-256. `is_sealed` reads it."""
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return f"{text}\n{opening} written by hfc; SHA-256 of what stands above: {digest}{closing}\n"


def is_sealed(path: Path) -> bool:
    """Return whether hfc wrote a text and nobody changed it since."""
    content = path.read_bytes()
    match = SEAL.search(content)
    return match is not None and hashlib.sha256(content[: match.start()]).hexdigest().encode() == match[1]


def write_folder(folder: Path, files: Mapping[str, bytes], marks: Sequence[str], what: str) -> None:
    """Write files into a folder, and replace or remove those of an earlier call alone.

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
            with _placing(target) as partial:
                make_folder(target.parent)
                partial.mkdir()
                _put_all(what, partial, {**files, mark: _marked(files[mark], digests, {})})
            return
        there = _own_files(folder, target, marks, digests)
        for name in listed(target / mark).keys() - files.keys():
            if name in there:  # an earlier call wrote it, and this one does not
                (target / name).unlink()
        replaced = {name: there[name] for name in digests if name in there and there[name] != digests[name]}
        # The mark comes first. It lists what lies there and what will: whatever stops this, all of it stays hfc's own.
        _put(target / mark, _marked(files[mark], digests, replaced))
        _put_all(what, target, {name: content for name, content in files.items() if name != mark})


def listed(mark: Path) -> dict[str, set[str]]:
    """Return the files that a mark lists, and the SHA-256 that each may have.

    There are none if hfc did not write it.
    """
    try:
        content = json.loads(mark.read_bytes())
        digests: dict[str, set[str]] = {}
        for name, digest in [*content[LISTED].items(), *content.get(REPLACED, {}).items()]:
            if not Path(name).is_absolute() and ".." not in Path(name).parts:  # a file elsewhere is none of the folder
                digests.setdefault(name, set()).add(digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return digests


def _own_files(folder: Path, target: Path, marks: Sequence[str], digests: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder that hfc wrote.

    Raises a RunError where another stands in the way.
    """
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
    mark: dict[str, Any] = {**json.loads(content), LISTED: dict(digests)}
    if replaced:
        mark[REPLACED] = dict(replaced)
    text = json.dumps(mark, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # what is no UTF-8 becomes an escape that JSON reads back


def _put_all(what: str, folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in steps(files.items(), f"writing {what}", len(files)):
        _put(folder / name, content)


def _put(path: Path, content: bytes) -> None:
    target = followed(path)
    make_folder(target.parent)
    with _placing(target) as partial:
        partial.write_bytes(content)
