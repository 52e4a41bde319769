"""Lock an output, and wait for the disk, whatever the file system.

Where there is no flock, the lock file is the lock: one process alone made it, and it says which (host, process, start).
"""

import contextlib
import errno
import logging
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hfc.errors import StoreError, warn_once
from hfc.provenance import make_folder

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
NAMELESS_S = 1.0  # how long a new lock may be without its holder's name
BEGINNING = "process "
MODE = 0o666  # less the umask


@dataclass(frozen=True)
class Holder:
    """Which process holds a lock."""

    pid: int
    host: str
    start: str
    """When it began, in the system's ticks; "" where the system does not tell."""

    def __str__(self) -> str:
        return f"{BEGINNING}{self.pid} on {self.host}"

    @property
    def record(self) -> str:
        """What the lock file says."""
        return f"{self}\nstarted at tick {self.start}\n"

    @property
    def ended(self) -> bool:
        """Whether it is known to have ended: it ran on this machine before."""
        return self.host == platform.node() and _start(self.pid) != self.start


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process from writing to `path`. The lock ends with the process that holds it.

    Raises:
        StoreError: another process holds it, or a file that is no lock has its name.
    """
    file = path.with_name(f"{path.name}.lock")
    me = Holder(os.getpid(), platform.node(), _start(os.getpid()) or "")
    try:
        make_folder(path.parent)
        descriptor = _acquire(path, file, me)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        if descriptor is not None:
            file.unlink(missing_ok=True)
            os.close(descriptor)
        elif _read(file) == me.record:
            file.unlink(missing_ok=True)


def _acquire(path: Path, file: Path, me: Holder) -> int | None:
    """Take the lock. Returns the descriptor that holds it; None where the file's being there does."""
    while True:
        try:
            descriptor, made = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, MODE), True
        except FileExistsError:
            try:
                descriptor, made = os.open(file, os.O_RDWR), False
            except FileNotFoundError:  # released meanwhile
                continue
        try:
            _refuse_other_file(file)
            if not _flock(descriptor):
                raise _held(path, file)
            if _is_at(descriptor, file):
                with contextlib.suppress(OSError):  # a full disk; the lock holds without its holder's name
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, me.record.encode(), 0)
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno not in UNSUPPORTED:
                raise
            warn_once(
                logger, f"this file system has no locks ({error.strerror}); {file.name} says who is writing instead"
            )
            if _acquire_by_record(path, file, me, made=made):
                return None
        except StoreError:
            os.close(descriptor)
            raise
        else:
            os.close(descriptor)  # whoever held the file released and removed it meanwhile


def _flock(descriptor: int) -> bool:
    """Return whether this process holds the lock now. False: another does. Raises OSError where there are no locks."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        raise
    return True


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _acquire_by_record(path: Path, file: Path, me: Holder, *, made: bool) -> bool:
    """Take the lock by what stands in its file. False: it was released meanwhile, so try again.

    Args:
        path, file, me: the output, its lock and who wants it.
        made: whether this process made the file, alone.
    """
    if made:
        try:
            file.write_text(me.record, "utf-8")
        except OSError:
            file.unlink(missing_ok=True)
            raise
        return True
    until = time.monotonic() + NAMELESS_S
    while not (text := _read(file)) and file.exists() and time.monotonic() < until:
        time.sleep(NAMELESS_S / 20)
    if not file.exists():
        return False
    holder = _holder(text)
    if holder is None or not holder.ended:
        raise _held(path, file, certain=holder is not None and holder.host == platform.node())
    _take_over(path, file, text, me)
    return True


def _take_over(path: Path, file: Path, text: str, me: Holder) -> None:
    """Put this process's record in the place of a dead one's. Of several that try, one alone makes `taking`."""
    taking = file.with_name(f"{file.name}.taking")
    try:
        os.close(os.open(taking, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE))
    except FileExistsError as error:
        raise StoreError(
            f"{path}: another process takes over the lock of one that was killed; if none does, remove {taking}"
        ) from error
    partial = file.with_name(f"{file.name}.{me.pid}.part")
    try:
        if _read(file) != text:  # another was faster
            raise _held(path, file)
        partial.write_text(me.record, "utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
        taking.unlink(missing_ok=True)


def _held(path: Path, file: Path, *, certain: bool = True) -> StoreError:
    holder = _read(file).partition("\n")[0] or "another process"
    if certain:
        return StoreError(f"{path}: {holder} is writing to it; wait for it, or give another --out")
    return StoreError(
        f"{path}: {holder} is writing to it, or was killed: this file system has no locks to tell; wait for it, "
        f"or if it does not run any more, remove {file}"
    )


def _refuse_other_file(file: Path) -> None:
    """Raise a StoreError where a file that is no lock has its name. Half a lock is one."""
    if not BEGINNING.startswith(_read(file)[: len(BEGINNING)]):
        raise StoreError(f"{file}: is in the way: it is not a lock of hfc; move it away or give another --out")


def _holder(text: str) -> Holder | None:
    """Read whom a lock file names. None if it names nobody."""
    try:
        name, ticks = text.splitlines()
        pid, host = name.removeprefix(BEGINNING).split(" on ", 1)
        return Holder(int(pid), host, ticks.removeprefix("started at tick ").strip())
    except ValueError:
        return None


def _start(pid: int) -> str | None:
    """Return when a process of this machine began. "" if the system does not tell, None if there is none."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]  # it ended, but its parent has not asked for its exit code
    except (OSError, ValueError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        _sync(file.fileno(), "a file")


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # one may write into it and not list it
        return
    try:
        _sync(descriptor, "a folder")
    finally:
        os.close(descriptor)


def _sync(descriptor: int, what: str) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED or error.errno == errno.ENOLCK:
            raise
        warn_once(
            logger, f"this file system cannot wait for {what} to be on the disk ({error.strerror}); going on without"
        )
