"""A run as a folder in Hugging Face layout."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from hfc import runs
from hfc.config import RECORDED, ExtractConfig
from hfc.extract.backbone import is_made_by, plain_network
from hfc.extract.encoder import Encoder
from hfc.predict.backbone import open_plain
from hfc.predict.export.card import model_card
from hfc.predict.export.recognised import timm_config, use_by_timm, with_classifier
from hfc.predict.head import EXPORTED, EXPORTED_MODEL, Trained, load_trained
from hfc.provenance import refuse_used, write_folder
from hfc.runs import Result

CARD = "README.md"


def export_hf(folder: Path, out: Path, *, with_backbone: bool = False, weights: str = RECORDED) -> Path:
    """Write a run as a folder in Hugging Face layout, which `Classifier.load` reads as well.

    config.json (the run's result, folders left out of its paths), model.safetensors (the head), hierarchy.csv and the
    card README.md. With the backbone the folder needs nothing else: model.safetensors is the backbone then, which timm
    loads by itself, and head.safetensors the head.

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
    metadata = {"key": trained.run.result.key, "format": "pt"}
    files = {runs.HEAD if backbone else EXPORTED_MODEL: save(_contiguous(trained.head.state_dict()), metadata)}
    described, use = _as_timm(*backbone, trained, out.name, files) if backbone else ({}, [])
    config = {
        **described,
        "model_type": "hfc",
        "architectures": [trained.config.head],
        "id2label": dict(enumerate(tree.leaves)),
        "label2id": {leaf: place for place, leaf in enumerate(tree.leaves)},
        "run": _without_folders(trained.run.result).plain(),
    }
    files[EXPORTED] = json.dumps(config, ensure_ascii=False).encode("utf-8")
    files[runs.HIERARCHY] = tree.to_csv().encode("utf-8")
    lines = [*_use(out.name, with_backbone), *use]
    files[CARD] = model_card(trained.run, tree, lines, ("timm",) if backbone else ()).encode("utf-8")
    write_folder(out, files, [EXPORTED], "the folder")
    return out / CARD


def _as_timm(
    stage1: ExtractConfig, encoder: Encoder, trained: Trained, name: str, files: dict[str, bytes]
) -> tuple[dict[str, object], list[str]]:
    """Add a backbone to the files of a folder; returns what timm reads of config.json, and how timm loads it."""
    places = stage1.backbone, stage1.weights, stage1.pool, stage1.image_size
    model, options = plain_network(*places, encoder.weights_digest)
    pool = str(options.get("global_pool", ""))
    unsaid = "" if is_made_by(stage1.backbone, options, model) else pool
    options = {key: value for key, value in options.items() if not (unsaid and key == "global_pool")}
    whole = None if unsaid else with_classifier(model, trained, pool, stage1.image_size)
    files[EXPORTED_MODEL] = save(_contiguous((whole or model).state_dict()), {"format": "pt"})
    leaves = trained.hierarchy.leaves if whole else ()
    described = timm_config(model, options, stage1, encoder.dim, leaves)
    return described, use_by_timm(name, encoder.dim, unsaid, whole=bool(whole))


def exported_files(out: Path) -> list[Path]:
    """List the files of an export."""
    names = (CARD, EXPORTED, runs.HEAD, runs.HIERARCHY, EXPORTED_MODEL)
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


def _use(name: str, with_backbone: bool) -> list[str]:
    """How the folder is used, in Markdown."""
    where = (
        "The backbone is in this folder."
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
