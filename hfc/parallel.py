"""Independent calls in several processes of this machine, or of a Ray cluster. joblib runs them."""

import contextlib
import errno
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import joblib

from hfc.device import choose_device
from hfc.errors import ConfigError, RunError

logger = logging.getLogger(__name__)

SLICE = 4  # calls for every process, where results come in slices


class Crew(NamedTuple):
    """The processes that make some calls."""

    jobs: int
    threads: int | None = None
    """Of each, where nobody asked for several, so that one will do; None: its share, or as OMP_NUM_THREADS says."""


def run(calls: Sequence[Any], crew: Crew, *, ordered: bool) -> Iterator[Any]:
    """Yield what the calls return, each as soon as it is there.

    Under a backend that gives all results at once, such as Ray's, they come in slices, so that what is stopped half way
    has lost no more than one.

    Args:
        calls: of `joblib.delayed`.
        crew: the processes.
        ordered: give the results in the order of the calls, not as they come.

    Raises:
        RunError: no processes can be started, or one was ended from outside.
    """
    jobs, begun = crew.jobs, False
    try:
        for result in _results(calls, crew, ordered):
            begun = True
            yield result
    except BrokenProcessPool as error:
        raise RunError(
            f"a process of --jobs {jobs} was ended from outside, perhaps because memory or /dev/shm was full; "
            "try fewer --jobs"
        ) from error
    except OSError as error:
        if crew.threads and not begun:
            logger.warning("no processes can be started: %s; this one makes all calls", error.strerror or error)
            yield from _results(calls, Crew(1), ordered)
            return
        if error.filename is not None or error.errno == errno.ENOENT:  # a file's, or there is no temporary folder
            raise
        raise RunError(
            f"--jobs {jobs}: no processes can be started: {error.strerror or error}; is there room in /dev/shm? "
            "--jobs 1 needs none"
        ) from error


def _results(calls: Sequence[Any], crew: Crew, ordered: bool) -> Iterator[Any]:
    """Yield what the calls return; raises what joblib does."""
    jobs, threads = crew
    if not is_local():
        for start in range(0, len(calls), SLICE * jobs):
            yield from joblib.Parallel(n_jobs=jobs)(calls[start : start + SLICE * jobs])
        return
    limit = {"backend": "loky", "inner_max_num_threads": threads} if threads and jobs > 1 else {}
    with joblib.parallel_config(**limit):
        processes = joblib.Parallel(n_jobs=jobs, return_as="generator" if ordered else "generator_unordered")
    yield from processes(calls)


def is_local() -> bool:
    """Whether calls run on this machine."""
    return bool(joblib.parallel.get_active_backend()[0].supports_return_generator)


@contextlib.contextmanager
def on(engine: str, device: str = "auto") -> Iterator[None]:
    """Run the calls inside the block on an engine. Those for a GPU have one to themselves on a cluster.

    Args:
        engine: local or ray.
        device: what the calls were asked to compute on. This process settles it for all: without a GPU here they take
            no GPU of the cluster either.

    Raises:
        ConfigError: Ray is not installed, or no such device.
    """
    if engine == "local":
        yield
        return
    with cluster() as ray:
        from ray.util.joblib import register_ray

        register_ray()
        gpus = int(ray.cluster_resources().get("GPU", 0))
        # A task that asks for no GPU sees none, or all of them at once.
        needs = {"num_cpus": 1, "num_gpus": 1} if gpus and choose_device(device).type == "cuda" else {}
        if gpus and not needs and device == "auto":
            logger.warning("%d GPUs of the cluster are not used: there is none here, where the search began", gpus)
        with joblib.parallel_config(backend="ray", ray_remote_args=needs):
            yield


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """Connect the package ray to a cluster, and disconnect it after the block.

    It is the cluster that RAY_ADDRESS names; without one, this machine is one meanwhile.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError('--engine ray needs Ray: python -m pip install "hfc[ray]"') from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
