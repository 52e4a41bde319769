"""A run's backbone, opened under the settings of stage 1 that the run records."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from hfc import crops
from hfc.config import RECORDED, ExtractConfig, PredictConfig, resolve
from hfc.device import choose_device, multiplies
from hfc.errors import ConfigError, EncoderError, RunError
from hfc.extract import network, worker
from hfc.extract.encoder import Encoder
from hfc.predict.head import EXPORTED_BACKBONE
from hfc.runs import Run

logger = logging.getLogger(__name__)


def open_backbone(run: Run, settings: PredictConfig) -> tuple[ExtractConfig, Encoder]:
    """Open the backbone that a run's features come from.

    Args:
        run: the run.
        settings: where its weights are and what to compute in, where that is not as recorded.

    Returns:
        The settings of stage 1 that the features were made under, and the backbone.

    Raises:
        RunError: the weights are not at hand or are others, the run does not say what they were, or its crops or
            normalisation are not those of this version.
        ConfigError: no such device.
    """
    device = choose_device(settings.device)
    try:
        fields: Mapping[str, Any] = run.result.cache.key_fields or {}
        config = _stage1(run, fields, settings, device)
        recorded = {name: fields[name] for name in ("weights", "pixels", "numerics", "mean", "std")}
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(
            f"{run.folder}: does not record how its features were made ({error}); extract and train again"
        ) from error
    try:
        encoder = worker.open_encoder(config)
    except EncoderError as error:
        raise RunError(
            f"{run.folder}: the run's backbone cannot be opened: {error}; if its weights lie elsewhere now, say where "
            "with --weights PATH"
        ) from error
    _refuse_other(run, recorded, config.weights, encoder)
    return config, encoder


def open_plain(run: Run, weights: str) -> tuple[ExtractConfig, Encoder]:
    """Open a run's backbone as exports take it: not compiled, in float32, on the CPU.

    Args:
        run: the run.
        weights: where its weights are now.

    Raises:
        RunError: as `open_backbone`.
    """
    settings = {"weights": weights, "precision": "fp32", "compile": "no", "device": "cpu", "batch_size": 1}
    return open_backbone(run, resolve(PredictConfig, settings))


def _stage1(run: Run, fields: Mapping[str, Any], settings: PredictConfig, device: torch.device) -> ExtractConfig:
    """The settings of stage 1: those of the run's feature key, or what the caller wants."""
    return resolve(
        ExtractConfig,
        {name: fields[name] for name in ("image_size", "resize", "roi_margin", "pool", "store")},
        {
            "backbone": run.result.cache.backbone,
            "weights": _weights(run, settings.weights),
            "views": "flip" if "flip" in fields["views"] else "identity",
            "precision": _precision(run, fields["precision"], settings.precision, device),
            "compile": fields["compile"] if settings.compile == RECORDED else settings.compile == "yes",
            "device": str(device),
            "batch_size": settings.batch_size,
            "workers": settings.workers,
        },
    )


def _refuse_other(run: Run, recorded: Mapping[str, Any], weights: str, encoder: Encoder) -> None:
    """Raise a RunError where the backbone is not the one that a run records."""
    if encoder.weights_digest != recorded["weights"]:
        raise RunError(
            f"{run.folder}: weights {weights} are not those the run was trained on: expected digest "
            f"{recorded['weights'][:12]}…, found {encoder.weights_digest[:12]}…; say where they are with --weights PATH"
        )
    here = {"pixels": crops.PIXELS, "numerics": network.NUMERICS, "mean": list(encoder.mean), "std": list(encoder.std)}
    for name, value in here.items():
        if recorded[name] != value:
            raise RunError(
                f"{run.folder}: its images were prepared in another way ({name} {recorded[name]}, here {value}); "
                "extract and train again, or use the versions of hfc and timm that the run records"
            )


def _weights(run: Run, wanted: str) -> str:
    """Where a run's weights are: timm's hub, a package or a file."""
    if wanted != RECORDED:
        return wanted
    beside = run.folder / EXPORTED_BACKBONE
    return str(beside) if beside.is_file() else run.result.cache.weights


def _precision(run: Run, recorded: str, wanted: str, device: torch.device) -> str:
    """The precision to compute in; another one than the features' gives a warning."""
    chosen = recorded if wanted == RECORDED else wanted
    if wanted == RECORDED and not multiplies(recorded, device):
        chosen = "fp32"
    if chosen != recorded:
        why = "" if wanted != RECORDED else f", as {device} has no {recorded} in hardware"
        logger.warning(
            "%s: the run's features were computed in %s, these in %s%s; the head was trained on features that are "
            "rounded in another way",
            run.folder,
            recorded,
            chosen,
            why,
        )
    return chosen
