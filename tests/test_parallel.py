"""Independent calls in several processes, and on a Ray cluster of this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import joblib
import pytest
from click.testing import CliRunner
from joblib.externals.loky import get_reusable_executor
from joblib.parallel import SequentialBackend

from cli.main import main
from hfc import parallel
from hfc.errors import RunError

ROOT = Path(__file__).parent.parent
TWO = parallel.Crew(2)
GRID = """
method = "flat"
hierarchy = "tree.csv"
epochs = 2
batch_size = 64
reduced = 16
[grid]
learning_rate = [1e-6, 0.001, 0.01]
dropout = [0.1, 0.2, 0.3]
"""


class AllAtOnce(SequentialBackend):  # type: ignore[misc]
    """A backend that cannot give one result after the other, as Ray's."""

    supports_return_generator = False


@pytest.fixture
def _own_processes() -> Iterator[None]:
    """End the processes afterwards.

    joblib keeps them for the next calls. One whose first call took little memory stops at the next that takes 300 MB,
    as PyTorch does: joblib takes that for a leak. Its warning is an error here, in the thread that all results come by.
    """
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.mark.usefixtures("_own_processes")
@pytest.mark.parametrize("backend", ["loky", "all at once"])
def test_every_call_returns_once_and_in_order(backend: str) -> None:
    joblib.register_parallel_backend("all at once", AllAtOnce)
    calls = [joblib.delayed(divmod)(number, 7) for number in range(25)]  # three slices and a part
    with joblib.parallel_config(backend=backend):
        assert list(parallel.run(calls, TWO, ordered=True)) == [divmod(number, 7) for number in range(25)]
        assert sorted(parallel.run(calls, TWO, ordered=False)) == sorted(divmod(number, 7) for number in range(25))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), FileNotFoundError(2, "No usable folder")])
def test_where_none_can_be_started_one_does_what_nobody_wants_of_several(
    error: OSError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = joblib.Parallel

    def refuse(n_jobs: int, **more: object) -> object:
        if n_jobs > 1:
            raise error
        return whole(n_jobs=n_jobs, **more)

    monkeypatch.setattr(joblib, "Parallel", refuse)
    calls = [joblib.delayed(divmod)(number, 7) for number in range(5)]
    assert list(parallel.run(calls, parallel.Crew(2, 1), ordered=True)) == [divmod(number, 7) for number in range(5)]
    assert caplog.messages == [f"no processes can be started: {error.strerror}; this one makes all calls"]
    with pytest.raises((RunError, FileNotFoundError), match=error.strerror):
        list(parallel.run(calls, TWO, ordered=True))


def test_an_error_of_a_call_is_no_reason_to_make_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def results(*arguments: object) -> Iterator[int]:
        yield 1
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(parallel, "_results", results)
    made = parallel.run([], parallel.Crew(2, 1), ordered=True)
    assert next(made) == 1
    with pytest.raises(RunError, match=r"^--jobs 2: no processes can be started: Input/output error"):
        next(made)


def test_what_comes_in_slices_is_not_waited_for_as_a_whole() -> None:
    joblib.register_parallel_backend("all at once", AllAtOnce)
    done: list[int] = []
    calls = [joblib.delayed(done.append)(number) for number in range(100)]
    with joblib.parallel_config(backend="all at once"):
        next(parallel.run(calls, TWO, ordered=True))
    assert len(done) == parallel.SLICE * 2


@pytest.fixture(scope="module")
def place(place: Path) -> Path:
    (place / "grid.toml").write_text(GRID)
    return place


def test_ray_is_asked_for_where_it_is_not_installed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["sweep", str(place / "cache.h5"), "--grid", str(place / "grid.toml"), "--out", str(place / "s")]
    result = CliRunner().invoke(main, [*words, "--engine", "ray"])
    assert result.exit_code == 1
    assert '--engine ray needs Ray: python -m pip install "hfc[ray]"' in result.output


UNUSED = "8 GPUs of the cluster are not used: there is none here, where the search began"


@pytest.mark.parametrize(
    ("gpus", "device", "here", "each", "warned"),
    [
        (0, "auto", "cuda", {}, []),
        (8.0, "auto", "cuda", {"num_cpus": 1, "num_gpus": 1}, []),
        (8.0, "auto", "cpu", {}, [UNUSED]),
        (8.0, "cpu", "cpu", {}, []),
    ],
)
def test_a_task_on_a_cluster_with_gpus_asks_for_one(
    gpus: float,
    device: str,
    here: str,
    each: dict[str, int],
    warned: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class OnRay(SequentialBackend):  # type: ignore[misc]
        def __init__(self, ray_remote_args: dict[str, int], **others: object) -> None:
            super().__init__(**others)
            self.asked = ray_remote_args

    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 16.0} | ({"GPU": gpus} if gpus else {}))
    registered = SimpleNamespace(register_ray=lambda: joblib.register_parallel_backend("ray", OnRay))
    monkeypatch.setattr(parallel, "cluster", lambda: nullcontext(ray))
    for name, module in {"ray": ray, "ray.util": SimpleNamespace(), "ray.util.joblib": registered}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(parallel, "choose_device", lambda name: SimpleNamespace(type=here))
    with parallel.on("ray", device):
        backend, _ = joblib.parallel.get_active_backend()
        assert backend.asked == each
    assert caplog.messages == warned


@pytest.mark.slow
def test_a_search_on_ray_finds_what_one_on_this_machine_finds(place: Path, tmp_path: Path) -> None:
    found = {}
    for engine in ("local", "ray"):
        out = tmp_path / engine
        words = ["-m", "cli", "sweep", "cache.h5", "--grid", "grid.toml", "--out", str(out), "--engine", engine]
        # One thread each: the same sums in the same order.
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *words, "--jobs", "2"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=env)
        assert done.returncode == 0, done.stderr
        lines = map(json.loads, (out / "trials.jsonl").read_text().splitlines())
        found[engine] = {line["key"]: (line["score"], line["epoch"], line["val"]) for line in lines}
    assert len(found["local"]) == 9
    assert found["ray"] == found["local"]
