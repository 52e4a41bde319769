"""Decode crops in processes of their own, into memory that they share with this one.

Threads of one process take turns at the interpreter, whatever the number of cores. Nothing is left behind however the
work ends: the memory has no name, and a process ends when nobody gives it work any more.

Dimensions: N regions, B crops a batch, S side of a crop in pixels.
"""

import json
import mmap
import os
import pickle
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfc.crops import Bytes, CropSettings
from hfc.datasets.images import Batch, Outcome, cut, decode
from hfc.datasets.parquet_file import ENDING
from hfc.datasets.remote import is_url
from hfc.errors import HfcError
from hfc.regions import Regions

CROPS = 32  # of a task: some 30 ms of work
TASKS = 2  # for every process: one in hand and one that waits
# Number of a task, place of its first crop in the shared memory, its first row, how many. 64 bytes: no two are mixed in
# a pipe, from which all processes draw.
TASK = struct.Struct("=4q32x")
# Another interpreter, not a fork, which would share locks and a GPU's state; nor one that runs the main module again.
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from hfc.datasets.processes import serve
serve()
"""


@dataclass(frozen=True)
class _Setup:
    """What a process must know. Numbers of files are those of its own that it was given."""

    tasks: int
    results: int
    memory: int
    shape: tuple[int, int, int, int]
    """Of the shared memory: places, S, S, 3."""
    table: int
    rows: int
    """N."""
    root: Path
    crop: CropSettings


def unfit(regions: Regions) -> str:
    """Return why regions are not decoded in processes; "" = they can be."""
    if not hasattr(os, "memfd_create") or not sys.executable:
        return "this system shares no memory without a name"
    paths = [str(regions.root), *regions.path.tolist()]
    if any(ENDING in path.lower() for path in paths):
        return "threads share what they read of a Parquet file"
    if any(map(is_url, paths)):
        return "images are on the network, where waiting takes no core"
    return ""


def stream_from_processes(
    regions: Regions,
    shards: Iterable[tuple[int, range]],
    settings: CropSettings,
    *,
    batch_size: int,
    workers: int,
    lock: Callable[[Bytes], AbstractContextManager[None]],
) -> Iterator[Batch]:
    """Decode the regions of some shards in processes. Batches are those of `stream_crops`, bit for bit.

    The crops of a batch are valid until the next but one is asked for: by then their memory is written anew.

    Args:
        regions: the table the rows index; of images that `unfit` has nothing against.
        shards: number and rows of each shard, taken up as the stream gets there.
        settings: how a region becomes a crop.
        batch_size: crops a batch at most.
        workers: processes.
        lock: holds while the memory is in use; it may lock its pages.

    Raises:
        HfcError: too little memory to decode an image, or a process was ended from outside.
    """
    ahead = -(-TASKS * workers * CROPS // batch_size)
    slots = ahead + 2  # and one to be filled, and one that the caller still uses
    shape = slots * batch_size, settings.size, settings.size, 3
    with ExitStack() as stack:
        crew = _Crew(regions, settings, shape, workers, stack)
        stack.enter_context(lock(crew.memory))
        queue: deque[tuple[Batch, range, int, list[int]]] = deque()
        for number, (shard, rows, last) in enumerate(cut(shards, batch_size)):
            place = number % slots * batch_size
            queue.append((Batch(shard, last=last), rows, place, crew.give(place, rows)))
            if len(queue) > ahead:
                yield _collect(crew, *queue.popleft())
        while queue:
            yield _collect(crew, *queue.popleft())


def _collect(crew: "_Crew", batch: Batch, rows: range, place: int, tasks: list[int]) -> Batch:
    crops = crew.memory[place : place + len(rows)]
    outcomes = [outcome for task in tasks for outcome in crew.take(task)]
    for position, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        if not outcome.failure and position > len(batch.rows):  # behind a failure crops move up
            crops[len(batch.rows)] = crops[position]
        batch.add(row, outcome)
    batch.crops = crops[: len(batch.rows)]
    return batch


class _Crew:
    """The processes, and the memory that they decode into."""

    def __init__(
        self,
        regions: Regions,
        settings: CropSettings,
        shape: tuple[int, int, int, int],
        workers: int,
        stack: ExitStack,
    ) -> None:
        self.memory, memory = _shared(shape)
        stack.callback(os.close, memory)
        table = _write_table(regions)
        stack.callback(os.close, table)
        tasks, self._tasks = os.pipe()
        stack.callback(os.close, self._tasks)
        self._processes: dict[Connection, subprocess.Popen[bytes]] = {}
        stack.callback(self._end)
        try:
            for _ in range(workers):
                setup = _Setup(tasks, 0, memory, shape, table, len(regions), regions.root, settings)
                connection, process = _start(setup)
                self._processes[connection] = process
        finally:
            os.close(tasks)
        self._given = 0
        self._done: dict[int, list[Outcome]] = {}

    def give(self, place: int, rows: range) -> list[int]:
        """Let some rows be decoded into places of the memory. Returns the numbers of the tasks."""
        numbers = []
        for start in range(0, len(rows), CROPS):
            part = rows[start : start + CROPS]
            with suppress(BrokenPipeError):  # all have ended, which `take` will tell
                os.write(self._tasks, TASK.pack(self._given, place + start, part.start, len(part)))
            numbers.append(self._given)
            self._given += 1
        return numbers

    def take(self, task: int) -> list[Outcome]:
        """Wait for a task, and return what became of its rows."""
        while task not in self._done:
            for connection in wait(list(self._processes)):
                assert isinstance(connection, Connection)
                try:
                    number, outcomes, error = connection.recv()
                except (EOFError, OSError) as lost:
                    raise HfcError(_farewell(self._processes[connection])) from lost
                if error:
                    raise error
                self._done[number] = outcomes
        return self._done.pop(task)

    def _end(self) -> None:
        """End the processes at once: they have nothing to lose."""
        for connection, process in self._processes.items():
            process.kill()
            process.wait()
            connection.close()


def _start(setup: _Setup) -> tuple[Connection, subprocess.Popen[bytes]]:
    receiving, sending = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            pass_fds=(setup.tasks, sending, setup.memory, setup.table),
            start_new_session=True,  # Ctrl-C is for this process, which then ends them
        )
    except OSError as error:
        os.close(receiving)
        raise HfcError(
            f"no process can be started to decode images: {error.strerror}; give a lower --workers"
        ) from error
    finally:
        os.close(sending)
    assert process.stdin
    with suppress(BrokenPipeError), process.stdin as pipe:
        pickle.dump(replace(setup, results=sending), pipe)
    return Connection(receiving, writable=False), process


def _farewell(process: subprocess.Popen[bytes]) -> str:
    code = process.wait()
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return (
        f"a process that decodes images was ended {how}, perhaps because memory ran out; what is finished is kept: run "
        "again, with a lower --workers"
    )


def _shared(shape: tuple[int, ...]) -> tuple[Bytes, int]:
    """Make memory without a name, and return it with its file descriptor."""
    descriptor = os.memfd_create("hfc")
    try:
        os.ftruncate(descriptor, int(np.prod(shape)))
        return _mapped(descriptor, shape), descriptor
    except (OSError, ValueError) as error:
        os.close(descriptor)
        raise HfcError(f"no memory to decode into: {error}; give a lower --workers or --batch-size") from error


def _mapped(descriptor: int, shape: tuple[int, ...]) -> Bytes:
    return np.frombuffer(mmap.mmap(descriptor, int(np.prod(shape))), dtype=np.uint8).reshape(shape)


def _write_table(regions: Regions) -> int:
    """Write paths and boxes where all processes read them: boxes, ends of paths, paths."""
    paths = [str(path).encode("utf-8", "surrogatepass") for path in regions.path]
    ends = np.cumsum([0, *map(len, paths)], dtype=np.int64)
    content = b"".join([np.ascontiguousarray(regions.box, dtype=np.float32).tobytes(), ends.tobytes(), *paths])
    memory, descriptor = _shared((len(content),))
    memory[:] = np.frombuffer(content, dtype=np.uint8)
    return descriptor


def _read_table(setup: _Setup) -> tuple[NDArray[np.float32], NDArray[np.int64], Bytes]:
    content = _mapped(setup.table, (os.fstat(setup.table).st_size,))
    first, second = 16 * setup.rows, 16 * setup.rows + 8 * (setup.rows + 1)
    boxes = content[:first].view(np.float32).reshape(-1, 4)
    return boxes, content[first:second].view(np.int64), content[second:]


def serve() -> None:
    """Decode what the tasks name until nobody gives any: the life of a process."""
    setup: _Setup = pickle.load(sys.stdin.buffer)  # from the process that started this one
    boxes, ends, paths = _read_table(setup)
    memory, results = _mapped(setup.memory, setup.shape), Connection(setup.results, readable=False)
    with suppress(BrokenPipeError):
        while record := os.read(setup.tasks, TASK.size):
            number, place, first, count = TASK.unpack(record)
            outcomes: list[Outcome] = []
            failed: Exception | None = None
            try:
                for position in range(count):
                    row = first + position
                    path = paths[ends[row] : ends[row + 1]].tobytes().decode("utf-8", "surrogatepass")
                    crop, outcome = decode(setup.root, path, boxes[row], setup.crop)
                    if crop is not None:
                        memory[place + position] = crop
                    outcomes.append(outcome)
            except Exception as error:  # it is for the process that leads
                failed = error
            results.send((number, outcomes, failed))
