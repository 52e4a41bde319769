"""timm loads an exported folder by itself, and computes the features that the head takes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

from hfc import Classifier
from hfc.predict.export import export_hf
from hfc.predict.head import load_trained
from hfc.predict.sources import as_regions
from hfc.runs import Run
from tests.support.trained import train_run


def by_timm(folder: Path, image: Image.Image) -> torch.Tensor:
    """What timm makes of an image by the folder alone, as the card says."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        features: torch.Tensor = model(transform(image)[None])
    return features


@pytest.mark.parametrize(
    ("stage1", "views"),
    [({}, 1), ({"resize": "pad", "pool": "max", "views": "flip"}, 2), ({"resize": "center-crop"}, 1)],
    ids=["squash", "pad, maximum, two views", "center-crop"],
)
def test_timm_computes_the_features_and_the_head_gives_the_answers(
    stage1: dict[str, object], views: int, place: Path, tmp_path: Path
) -> None:
    run, _ = train_run(place, stage1, {"method": "flat"})
    export_hf(run.folder, tmp_path / "hf", with_backbone=True)
    file = place / "img" / "02.jpg"
    with Image.open(file) as picture:
        image = picture.convert("RGB")
    crops = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)][:views]
    features = np.stack([by_timm(tmp_path / "hf", crop)[0].numpy() for crop in crops])[None]
    classifier = Classifier.load(run.folder)
    ((_, own),) = classifier.features(as_regions([str(file)]))
    np.testing.assert_allclose(features, own.astype(np.float32), rtol=2e-3, atol=2e-3)  # stored in float16
    answer = classifier(file)
    (probable,) = classifier.predict_features(features)
    assert probable.path == answer.path
    assert probable.probabilities == pytest.approx(answer.probabilities, abs=1e-3)


def test_the_folder_is_all_that_timm_needs_and_says_what_it_is(trained: tuple[Run, Path], tmp_path: Path) -> None:
    export_hf(trained[0].folder, tmp_path / "hf", with_backbone=True)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    about = config["pretrained_cfg"]
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("test_efficientnet", 0, 256)
    assert (about["input_size"], about["crop_mode"], about["crop_pct"]) == ([3, 32, 32], "squash", 1.0)
    assert not {"url", "hf_hub_id", "tag", "source"} & about.keys()
    with safe_open(tmp_path / "hf" / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    card = (tmp_path / "hf" / "README.md").read_text()
    assert 'timm.create_model("local-dir:hf", pretrained=True)' in card
    assert '"timm"]' in card.split("---")[1]
    tuned = timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True, num_classes=3)  # for fine-tuning
    assert tuned.get_classifier().out_features == 3
    assert load_trained(tmp_path / "hf").run.result.key == trained[0].result.key


def test_a_linear_head_is_the_classifier_that_timm_loads(place: Path, tmp_path: Path) -> None:
    run, _ = train_run(place, {}, {"method": "linear", "transform": "none"})
    export_hf(run.folder, tmp_path / "hf", with_backbone=True)
    file = place / "img" / "02.jpg"
    with Image.open(file) as picture:
        logits = by_timm(tmp_path / "hf", picture.convert("RGB"))
    names = json.loads((tmp_path / "hf" / "config.json").read_text())["label_names"]
    answer = Classifier.load(run.folder)(file)
    by_name = dict(zip(names, logits.softmax(1)[0].tolist(), strict=True))
    assert by_name == pytest.approx({leaf.path[-1]: leaf.probability for leaf in answer.top}, abs=1e-3)
    assert Classifier.load(tmp_path / "hf")(file) == answer
    assert "probabilities = model(transform(image)[None]).softmax(1)" in (tmp_path / "hf" / "README.md").read_text()


def test_a_network_made_for_one_size_is_made_for_that_of_the_features(place: Path, tmp_path: Path) -> None:
    """And one whose last layer depends on the pooling is made with its own, and told the pooling as the card says."""
    run, _ = train_run(place, {"backbone": "test_vit", "weights": "random", "pool": "mean"}, {"method": "flat"})
    export_hf(run.folder, tmp_path / "hf", with_backbone=True)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["model_args"] == {"img_size": 32}
    card = (tmp_path / "hf" / "README.md").read_text()
    code = card.split("```python\n")[2].split("```")[0]
    assert code.splitlines()[3] == 'model.reset_classifier(0, "avg")'
    file = place / "img" / "02.jpg"
    with Image.open(file) as picture:
        names: dict[str, Any] = {"image": picture.convert("RGB")}
    exec(code.replace("local-dir:hf", f"local-dir:{tmp_path / 'hf'}"), names)
    ((_, own),) = Classifier.load(run.folder).features(as_regions([str(file)]))
    np.testing.assert_allclose(names["features"].detach(), own[0].astype(np.float32), rtol=2e-3, atol=2e-3)
