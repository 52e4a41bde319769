"""Where a number came from: digests, versions, the commit."""

import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hfc import __version__

PACKAGE = Path(__file__).parent
# What the numbers of a run come from, beside what its key names: features, labels, tree and settings. Not here, though
# training imports it, is what cannot change them: what reads and checks (its results are in the key), names, writes,
# spreads over processes or reports.
RUN_SOURCES = (
    "hierarchy.py",
    "metrics.py",
    "names.py",
    "train/data.py",
    "train/decoding.py",
    "train/evaluation.py",
    "train/features.py",
    "train/fit.py",
    "train/heads",
    "train/losses.py",
    "train/settings.py",
    "train/stacked.py",
    "train/stage.py",
    "train/weightings.py",
)
PACKAGES = ("torch", "torchvision", "timm", "h5py", "numpy", "pillow", "scikit-learn")


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text. NaN is refused with a ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of a JSON value's canonical form, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogateescape")).hexdigest()


def digest_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of the concatenated chunks, as 64 hexadecimal digits."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()


@functools.cache
def code_digest() -> str:
    """SHA-256 over every Python source of the package: names the code even where there is no git."""
    return digest_sources(PACKAGE)


@functools.cache
def run_code_digest() -> str:
    """SHA-256 over the sources that shape a run: it changes the runs' keys, and nothing else of the code does."""
    return digest_sources(PACKAGE, RUN_SOURCES)


def digest_sources(package: Path, names: Iterable[str] = (".",)) -> str:
    """SHA-256 over the Python sources of a package.

    Args:
        package: its folder.
        names: files and folders in it; all by default.
    """
    paths = [package / name for name in names]
    sources = sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])})
    return digest([[file.relative_to(package).as_posix(), file.read_text("utf-8")] for file in sources])


@functools.cache
def git_commit() -> str:
    """The commit the running code was checked out from, `+` appended if files differ from it; "" outside git."""

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
    """A commit for readers: its first twelve digits, and its `+`."""
    return commit[:12] + "+" * commit.endswith("+")


def code() -> dict[str, str]:
    """Version, commit and digest of the running code."""
    return {"version": __version__, "commit": git_commit(), "digest": code_digest()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape the numbers; none of them is imported."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def now() -> str:
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
