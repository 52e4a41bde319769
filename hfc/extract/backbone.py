"""Make a backbone by its timm name, and name its weights by a digest."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hfc.errors import EncoderError
from hfc.extract.checkpoints import reason
from hfc.extract.lean import timm
from hfc.extract.network import places
from hfc.extract.weights import POOLING, default_pool, load_weights, seeded
from hfc.provenance import canonical_json, digest_chunks

STEPS = (14, 16, 32)  # pixels that networks divide an image by; near a refused size, their multiples are tried
# What CUDA says, and cuDNN and cuBLAS when a handle of theirs finds no room.
RAN_OUT = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "STATUS_NOT_INITIALIZED")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def create_network(backbone: str, image_size: int) -> tuple[nn.Module, dict[str, Any]]:
    """Make the network as timm does for this size. Returns it and the options it was made with."""
    if not timm.is_model(backbone):
        base, names = backbone.split(".")[0], timm.list_models()
        near = [name for name in names if base in name][:3] or difflib.get_close_matches(base, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
        raise EncoderError(f"timm has no backbone {backbone!r}; {hint}")
    if "." in backbone and backbone not in (tagged := timm.list_pretrained(f"{backbone.split('.')[0]}.*")):
        known = ", ".join(difflib.get_close_matches(backbone, tagged, n=1) or tagged) or "no weights"
        raise EncoderError(f"timm has no weights {backbone!r}; for this backbone it has {known}")
    options = _options(backbone, image_size)
    try:
        return seeded(0, lambda: timm.create_model(backbone, pretrained=False, **options)), options
    except Exception as error:  # networks refuse with errors of every kind
        if not options:
            raise EncoderError(f"backbone {backbone} cannot be built: {reason(error)}") from error
        raise _wrong_size(backbone, image_size, error) from error


def load_network(backbone: str, weights: str, pool: str, image_size: int) -> tuple[nn.Module, str, dict[str, object]]:
    """Load the network with its weights, without its classifier; its pooling; and timm's options for both."""
    model, options = create_network(backbone, image_size)
    own = default_pool(model)
    pool = own if pool == "auto" else pool
    load_weights(model, backbone, weights, pool, options)
    return model, pool, options | ({} if pool == own else {"global_pool": POOLING[pool]})


def plain_weights(backbone: str, weights: str, pool: str, image_size: int, digest: str = "") -> dict[str, Tensor]:
    """Return the tensors of `plain_network`, in timm's names."""
    return plain_network(backbone, weights, pool, image_size, digest)[0].state_dict()


def plain_network(
    backbone: str, weights: str, pool: str, image_size: int, digest: str = ""
) -> tuple[nn.Module, Mapping[str, object]]:
    """Load a backbone as it came, without its classifier, not made faster yet; and timm's options that make it.

    Raises:
        EncoderError: as `load_encoder`, or if the weights' digest is another than the one given.
    """
    model, _, options = load_network(backbone, weights, pool, image_size)
    if digest and (actual := digest_weights(model)) != digest:
        raise EncoderError(
            f"weights {weights}: changed while they were in use: expected digest {digest[:12]}…, found {actual[:12]}…"
        )
    return model, options


def is_made_by(backbone: str, options: Mapping[str, object], model: nn.Module) -> bool:
    """Whether timm makes a network of the same tensors without a classifier by these options.

    One that pools otherwise than by default may have its last normalisation elsewhere then.
    """
    given: dict[str, Any] = dict(options)
    with torch.device("meta"):
        made: nn.Module = timm.create_model(backbone, num_classes=0, **given)
    shapes = [{name: tensor.shape for name, tensor in one.state_dict().items()} for one in (model, made)]
    return shapes[0] == shapes[1]


def _options(backbone: str, image_size: int) -> dict[str, Any]:
    """Return the options with which timm makes a network for a size.

    timm sets some networks up for one size, with as many positions or windows: by default for the one of their weights,
    else for one that is named, and then resamples what the weights have for theirs.
    """
    config = timm.models.get_pretrained_cfg(backbone)
    sized = config is not None and config.fixed_input_size and config.input_size[1:] != (image_size, image_size)
    return {"img_size": image_size} if sized else {}


def _wrong_size(backbone: str, image_size: int, error: Exception) -> EncoderError:
    """Make the error for a size, which names sizes that the network does take."""
    message = f"backbone {backbone} does not take images of {image_size} pixels: {reason(error)}"
    if (config := timm.models.get_pretrained_cfg(backbone)) is None:
        return EncoderError(message)
    near = {step * count for step in STEPS for count in (image_size // step, image_size // step + 1)} - {0}
    taken = sorted({config.input_size[-1], *(size for size in near if _takes(backbone, size))})
    return EncoderError(f"{message}; it takes {', '.join(map(str, taken))} (it was made for {config.input_size[-1]})")


@torch.inference_mode()
def _takes(backbone: str, image_size: int) -> bool:
    """Return whether a network takes a size, by shapes alone: without weights or computation."""
    try:
        with torch.device("meta"):
            timm.create_model(backbone, **_options(backbone, image_size)).eval()(torch.empty(1, 3, *[image_size] * 2))
    except Exception:  # networks refuse with errors of every kind
        return False
    return True


@torch.inference_mode()
def probe(
    model: nn.Module, backbone: str, image_size: int, device: torch.device, precision: str
) -> tuple[tuple[int, ...], int]:
    """Send one black image through; return the feature map's shape and the number of features."""
    image = torch.zeros(1, 3, image_size, image_size, device=device)

    def run(precision: str) -> tuple[Any, Any]:
        with torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "fp32"):
            return model.forward_features(image), model(image)  # type: ignore[operator]

    try:
        maps, features = run(precision)
    except Exception as error:  # networks refuse with errors of every kind
        if ran_out(error):
            raise EncoderError(f"not even one crop fits into the memory of {device}: {error}") from error
        if precision == "fp32":
            raise _wrong_size(backbone, image_size, error) from error
        try:
            run("fp32")
        except Exception as exact:
            raise _wrong_size(backbone, image_size, exact) from exact
        message = f"backbone {backbone} does not compute in {precision}: {reason(error)}; give --precision fp32"
        raise EncoderError(message) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise EncoderError(
            f"backbone {backbone} gives no vector of an image but {shape}; name a pooling, as --pool mean"
        )
    return places(maps, features.shape[1], getattr(model, "num_features", 0)), features.shape[1]


def ran_out(error: Exception) -> bool:
    """Return whether an error says that a GPU's memory ran out.

    Only PyTorch's allocator has a type for it. What CUDA, cuDNN and cuBLAS allocate by themselves fails in words.
    """
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in RAN_OUT)


def digest_weights(model: nn.Module) -> str:
    """Compute the SHA-256 over names, types, shapes and bytes of all tensors that shape features."""

    def chunks() -> Iterator[bytes | memoryview]:
        for name, tensor in sorted(model.state_dict().items()):
            if not name.endswith("num_batches_tracked"):  # a counter of training steps; it shapes no feature
                yield canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode()
                yield memoryview(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())

    return digest_chunks(chunks())


def colours(model: nn.Module) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the channel means and deviations of a network's training, of values in 0…1."""
    config = timm.data.resolve_data_config({}, model=model)
    return config["mean"], config["std"]
