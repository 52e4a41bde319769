"""Independent calls in several processes of this machine, or of a Ray cluster. joblib runs them."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import joblib

from hfc.errors import ConfigError

SLICE = 4  # calls a process, where results come in slices


def run(calls: Sequence[Any], jobs: int, *, ordered: bool) -> Iterator[Any]:
    """What the calls return, each as soon as it is there.

    Under a backend that gives all results at once, such as Ray's, they come in slices, so that what is stopped half way
    has lost no more than one.

    Args:
        calls: of `joblib.delayed`.
        jobs: processes.
        ordered: give the results in the order of the calls, not as they come.
    """
    backend, _ = joblib.parallel.get_active_backend()
    if backend.supports_return_generator:
        kind = "generator" if ordered else "generator_unordered"
        yield from joblib.Parallel(n_jobs=jobs, return_as=kind)(calls)
        return
    for start in range(0, len(calls), SLICE * jobs):
        yield from joblib.Parallel(n_jobs=jobs)(calls[start : start + SLICE * jobs])


@contextlib.contextmanager
def on(engine: str) -> Iterator[None]:
    """Calls inside run on an engine: local or ray. RAY_ADDRESS says which cluster; without it this machine is one.

    Raises:
        ConfigError: Ray is not installed.
    """
    if engine == "local":
        yield
        return
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ConfigError('--engine ray needs Ray: python -m pip install "hfc[ray]"') from error
    register_ray()
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        if ours:
            ray.shutdown()
