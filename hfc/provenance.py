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
    root = Path(__file__).parent
    sources = sorted(root.rglob("*.py"))
    return digest([[path.relative_to(root).as_posix(), path.read_text("utf-8")] for path in sources])


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
