"""A run's head, with what is needed to read its answers. No images, no backbone.

Dimensions: B rows, V views, D features, H levels, K leaves below a node.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hfc import runs
from hfc.config import TrainConfig, plain, resolve
from hfc.errors import FORMER_SETTINGS, FORMER_VALUES, ConfigError, RunError
from hfc.hierarchy import Hierarchy, some
from hfc.predict.answers import Answer, Leaf
from hfc.predict.within import Below, below
from hfc.runs import Result, Run
from hfc.store import Features
from hfc.train.decoding import DECODINGS, Paths, climbed, leaf_paths, shares_of
from hfc.train.evaluation import predict, used_views
from hfc.train.features import Resident
from hfc.train.heads import Head
from hfc.train.heads.layers import Prediction
from hfc.train.settings import build_head

# A folder in Hugging Face layout, as `hfc export --hf` writes it: the run's result within config.json, and the model.
# That is the head, or where there is a backbone the backbone, as timm looks for it there, with the head beside it.
# Earlier versions put the backbone beside the head.
EXPORTED, EXPORTED_MODEL, EARLIER_BACKBONE = "config.json", "model.safetensors", "backbone.safetensors"


def exported_head(folder: Path) -> str:
    """The name of the file in an export that holds the head."""
    return runs.HEAD if (folder / runs.HEAD).is_file() else EXPORTED_MODEL


def exported_backbone(folder: Path) -> Path:
    """Where an export has its backbone, if it has one."""
    return folder / (EARLIER_BACKBONE if exported_head(folder) == EXPORTED_MODEL else EXPORTED_MODEL)


@dataclass(frozen=True)
class Trained:
    """A run's head with what is needed to read its answers."""

    run: Run
    hierarchy: Hierarchy
    config: TrainConfig
    head: Head
    """In evaluation mode, on the CPU, in float32."""
    temperature: float = 1.0
    """T, by which its probabilities are calibrated; 1 for a run of an earlier version."""

    @property
    def random_weights(self) -> bool:
        """Whether the backbone of its features was never trained."""
        return self.run.result.cache.random_weights

    def predict(self, features: Features) -> Prediction:
        """Compute the probabilities of (B, V, D) features as a cache holds them; neither decoded nor calibrated."""
        views = used_views(Resident(torch.from_numpy(features)), self.config)
        return predict(self.head, views, torch.arange(len(features)), self.config.beta)

    @cached_property
    def paths(self) -> list[tuple[str, ...]]:
        """Of each leaf the names of the nodes down to it."""
        return [self.hierarchy.path(leaf) for leaf in range(len(self.hierarchy.leaves))]

    def answers(
        self, features: Features, ids: Sequence[str], top: int, min_confidence: float, within: Below | None = None
    ) -> Iterator[Answer]:
        """Tell what (B, V, D) features mean, in B answers.

        Args:
            features: as a cache holds them.
            ids: of each row.
            top: leaves to name.
            min_confidence: the answer is the deepest node of the path that is at least so probable.
            within: the node that every answer lies below, itself at the least; None: the root.
        """
        if not len(features):
            return
        part = within or below(self.hierarchy)
        paths = leaf_paths(self.hierarchy, part.leaves if part.path else None)
        scores, shares = self._below(features, part, paths)
        best = scores.argsort(dim=1, descending=True, stable=True)[:, :top]
        ancestors = paths.ancestors
        path = ancestors[best[:, 0]]
        depth = (path >= 0).sum(dim=1)
        if min_confidence:
            depth = climbed(shares, paths, min_confidence).clamp_min(len(part.path))
        along = torch.stack(
            [(shares * (ancestors[:, h] == path[:, h, None])).sum(dim=1) for h in range(ancestors.shape[1])], dim=1
        ).clamp_max(1)
        named = part.leaves[best.numpy()].tolist()
        rows = zip(ids, depth.tolist(), along.tolist(), named, shares.gather(1, best).tolist(), strict=True)
        for name, level, probabilities, leaves, chances in rows:
            yield Answer(
                name,
                self.paths[leaves[0]][:level],
                tuple(probabilities[:level]),
                tuple(Leaf(self.paths[leaf], chance) for leaf, chance in zip(leaves, chances, strict=True)),
                within=part.path,
            )

    def _below(self, features: Features, part: Below, paths: Paths) -> tuple[Tensor, Tensor]:
        """Compute what ranks the leaves below a node, and their probabilities there, (B, K) each."""
        raw = self.predict(features)
        if part.path:
            levels = tuple(level.double() for level in raw.levels)
            final = raw.final[:, torch.from_numpy(part.leaves)].double()
            # A product may have a leaf's probability several times: what all were divided by would not cancel out.
            products = self.config.decode == "consistent" and not self.hierarchy.even
            raw = Prediction(levels, final if products else _shared(final))
        scores = DECODINGS[self.config.decode](raw, paths).final
        # The scores of least-cost rank the leaves; what is probable, the head says.
        final = raw.final if self.config.decode == "least-cost" else scores
        return scores, shares_of(final, self.temperature)


def _shared(final: Tensor) -> Tensor:
    """Share all probability among leaves, however little of it they had; those without any share it evenly."""
    final = final + torch.finfo(torch.float64).tiny
    return final / final.sum(dim=1, keepdim=True)


def load_trained(folder: Path) -> Trained:
    """Load a run's head from its folder, or from an export of `hfc export --hf`.

    Raises:
        RunError: a file is missing or damaged, or the files are of different runs.
    """
    run, file = _find(folder)
    hierarchy = runs.hierarchy(run)
    tensors = read_head(run, file)
    try:
        config = _resolved(run.result.config)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers are left alone
            head = build_head(config, hierarchy, run.result.cache.dim)
        head.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{run.folder}: the head does not fit what the run records ({reason}); train it again"
        ) from error
    return Trained(run, hierarchy, config, head.eval(), run.result.calibrated_by)


def read_head(run: Run, name: str) -> dict[str, NDArray[Any]]:
    """Read the selected weights of a run.

    Args:
        run: the run.
        name: the file in its folder that holds them.

    Raises:
        RunError: they are missing, damaged, or those of another run.
    """
    file = run.folder / name
    try:
        file.open("rb").close()  # safetensors calls a file that may not be read a missing one
        with safe_open(file, "numpy") as opened:
            key = (opened.metadata() or {}).get("key", "none")
            tensors = {tensor: opened.get_tensor(tensor) for tensor in opened.keys()}  # noqa: SIM118 (no mapping)
    except PermissionError as error:
        raise runs.closed(file, error) from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file}: cannot read the head: {error}; train the run again") from error
    if key != run.result.key:
        raise RunError(
            f"{file}: the head of another run: expected key {run.result.key[:12]}…, found {key[:12]}…; train the run "
            "again"
        )
    return tensors


def _resolved(recorded: Mapping[str, object]) -> TrainConfig:
    """Resolve the settings that a run records, whatever version trained it. Raises a ConfigError if one is unknown."""
    # The method's name may have another meaning by now; every setting of it is there. Former settings shape no answer.
    settings = {key: value for key, value in recorded.items() if key != "method" and key not in FORMER_SETTINGS}
    former = {key: values.get(str(settings.get(key))) for key, values in FORMER_VALUES.items()}
    settings |= {key: value for key, value in former.items() if value}
    # What an earlier version did not have is as it is without any method.
    return resolve(TrainConfig, {**plain(TrainConfig()), **settings, "method": TrainConfig.method})


def _find(folder: Path) -> tuple[Run, str]:
    """The run in a folder or the only one below; and the file of its head."""
    if (folder / EXPORTED).is_file() and not (folder / runs.RESULT).is_file():
        try:
            content = json.loads((folder / EXPORTED).read_text("utf-8"))["run"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{folder / EXPORTED}: not what hfc export writes: {error!r}; export it again") from error
        result = Result.read(content, f"{folder / EXPORTED}: run", "export it again")
        return Run(folder, result, ()), exported_head(folder)
    if folder.is_dir() and not (folder / runs.RESULT).is_file():
        below = runs.find([folder])
        if len(below) > 1:
            names = some([str(run.folder.relative_to(folder)) for run in below])
            raise RunError(f"{folder}: holds {len(below)} runs; name one of them, or give --best: {names}")
        return below[0], runs.HEAD
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run; name the folder of one, as hfc train prints it")
    return runs.read(folder), runs.HEAD
