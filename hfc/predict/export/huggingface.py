"""A run as a folder in Hugging Face layout."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from hfc import runs
from hfc.config import RECORDED
from hfc.extract.encoder import plain_weights
from hfc.predict.backbone import open_plain
from hfc.predict.export.card import model_card
from hfc.predict.head import EXPORTED, EXPORTED_BACKBONE, EXPORTED_HEAD, load_trained
from hfc.provenance import refuse_used, write_folder
from hfc.runs import Result

CARD = "README.md"


def export_hf(folder: Path, out: Path, *, with_backbone: bool = False, weights: str = RECORDED) -> Path:
    """Write a run as a folder in Hugging Face layout, which `Classifier.load` reads as well.

    model.safetensors (the head), config.json (the run's result, folders left out of its paths), hierarchy.csv and the
    card README.md; with the backbone also backbone.safetensors, so that the folder needs nothing else.

    Args:
        folder: the run's.
        out: the folder to write, new or an earlier export; what else lies in that stays.
        with_backbone: put the backbone's weights beside the head.
        weights: where they are now.

    Returns:
        The card.

    Raises:
        RunError: the run cannot be used, or the folder not written, as by a file in it that no export wrote.
    """
    trained = load_trained(folder)
    backbone = open_plain(trained.run, weights) if with_backbone else None
    if not (out / EXPORTED).is_file():
        refuse_used(out, "hfc export")
    tree = trained.hierarchy
    config = {
        "model_type": "hfc",
        "architectures": [trained.config.head],
        "id2label": dict(enumerate(tree.leaves)),
        "label2id": {leaf: place for place, leaf in enumerate(tree.leaves)},
        "run": _without_folders(trained.run.result).plain(),
    }
    metadata = {"key": trained.run.result.key, "format": "pt"}
    files = {EXPORTED_HEAD: save(_contiguous(trained.head.state_dict()), metadata)}
    if backbone:
        stage1, encoder = backbone
        tensors = plain_weights(stage1.backbone, stage1.weights, stage1.pool, stage1.image_size, encoder.weights_digest)
        files[EXPORTED_BACKBONE] = save(_contiguous(tensors), {"format": "pt"})
    files[EXPORTED] = json.dumps(config, ensure_ascii=False).encode("utf-8")
    files[runs.HIERARCHY] = tree.to_csv().encode("utf-8")
    files[CARD] = model_card(trained.run, tree, _use(with_backbone, out.name)).encode("utf-8")
    write_folder(out, files, [EXPORTED], "the folder")
    return out / CARD


def exported_files(out: Path) -> list[Path]:
    """List the files of an export."""
    names = (CARD, EXPORTED_BACKBONE, EXPORTED, runs.HIERARCHY, EXPORTED_HEAD)
    return [out / name for name in names if (out / name).is_file()]


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: in one piece each, under one name each."""
    pieces: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        piece = tensor.detach().cpu().contiguous()
        pieces[name] = piece.clone() if piece.data_ptr() in places else piece
        places.add(piece.data_ptr())
    return pieces


def _without_folders(result: Result) -> Result:
    """The result with names of files in place of paths, which concern nobody else."""
    cache = result.cache
    labels = None if cache.labels is None else Path(cache.labels).name
    cache = replace(cache, path=Path(cache.path).name, labels=labels, weights=Path(cache.weights).name)
    hierarchy = Path(str(result.config["hierarchy"])).name
    return replace(result, cache=cache, config={**result.config, "hierarchy": hierarchy})


def _use(with_backbone: bool, name: str) -> list[str]:
    """How the folder is used, in Markdown."""
    where = (
        "The backbone's weights lie beside the head."
        if with_backbone
        else "The backbone's weights are not in this folder: they are taken from where the run had them, or from "
        "`weights=PATH`, and refused unless they have the digest below."
    )
    return [
        "```python",
        "from hfc import Classifier",
        "",
        f"classifier = Classifier.load({json.dumps(name)})",
        'print(classifier("photo.jpg"))',
        "```",
        "",
        where,
    ]
