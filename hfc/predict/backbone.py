"""A run's backbone, opened under the settings of stage 1 that the run records."""

import logging
from dataclasses import dataclass

import torch

from hfc import crops
from hfc.config import RECORDED, ExtractConfig, PredictConfig, resolve
from hfc.device import choose_device, multiplies
from hfc.errors import ConfigError, EncoderError, RunError
from hfc.extract import network, worker
from hfc.extract.encoder import Encoder
from hfc.predict.head import exported_backbone
from hfc.predict.passes import Passes
from hfc.runs import Run
from hfc.store.records import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe(Record):
    """How a run's features were made: of the fields of their key those that its backbone is opened by."""

    pixels: int
    """The version of the crops."""
    numerics: int
    """The version of the network's arithmetic."""
    weights: str
    """The digest of the weights."""
    image_size: int
    resize: str
    roi_margin: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pool: str
    views: tuple[str, ...]
    precision: str
    compile: bool
    store: str


def recipe(run: Run) -> Recipe:
    """Read how a run's features were made.

    Raises:
        RunError: the run does not record it; the message names the field.
    """
    return Recipe.read(run.result.cache.key_fields, f"{run.folder}: cache.key_fields", "extract and train again")


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
    recorded = recipe(run)
    try:
        config = _stage1(run, recorded, settings, device)
    except ConfigError as error:
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
    encoder.batch_size = settings.batch_size or encoder.batch_size
    if not config.compile:  # a compiled network takes batches of one size
        encoder.fewest = Passes(encoder, config.image_size)
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


def _stage1(run: Run, recorded: Recipe, settings: PredictConfig, device: torch.device) -> ExtractConfig:
    """The settings of stage 1: those that the run records, or what the caller wants."""
    return resolve(
        ExtractConfig,
        {
            "image_size": recorded.image_size,
            "resize": recorded.resize,
            "roi_margin": recorded.roi_margin,
            "pool": recorded.pool,
            "store": recorded.store,
            "backbone": run.result.cache.backbone,
            "weights": _weights(run, settings.weights),
            "views": "flip" if "flip" in recorded.views else "identity",
            "precision": _precision(run, recorded.precision, settings.precision, device),
            "compile": recorded.compile if settings.compile == RECORDED else settings.compile == "yes",
            "device": str(device),
            "batch_size": settings.batch_size,
            "workers": settings.workers,
        },
    )


def _refuse_other(run: Run, recorded: Recipe, weights: str, encoder: Encoder) -> None:
    """Raise a RunError where the backbone is not the one that a run records."""
    if encoder.weights_digest != recorded.weights:
        raise RunError(
            f"{run.folder}: weights {weights} are not those the run was trained on: expected digest "
            f"{recorded.weights[:12]}…, found {encoder.weights_digest[:12]}…; say where they are with --weights PATH"
        )
    for name, there, here in (
        ("pixels", recorded.pixels, crops.PIXELS),
        ("numerics", recorded.numerics, network.NUMERICS),
        ("mean", list(recorded.mean), list(encoder.mean)),
        ("std", list(recorded.std), list(encoder.std)),
    ):
        if there != here:
            raise RunError(
                f"{run.folder}: its images were prepared in another way ({name} {there}, here {here}); "
                "extract and train again, or use the versions of hfc and timm that the run records"
            )


def _weights(run: Run, wanted: str) -> str:
    """Where a run's weights are: timm's hub, a package or a file."""
    if wanted != RECORDED:
        return wanted
    beside = exported_backbone(run.folder)
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
