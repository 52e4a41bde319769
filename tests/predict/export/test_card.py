"""A model card says what the run records."""

from pathlib import Path

from huggingface_hub import ModelCard

from hfc.predict.export import export_hf
from tests.support.trained import train_run


def test_a_card_says_what_the_run_records(place: Path, tmp_path: Path) -> None:
    run, _ = train_run(place, {"weights": "random"}, {"method": "flat", "dropout": 0.1})
    card = export_hf(run.folder, tmp_path / "hf")
    head = ModelCard.load(card)  # the hub's own reader
    assert head.data.library_name == "hfc"
    assert head.data.pipeline_tag == "image-classification"
    (measured,) = [found for found in head.data.eval_results if found.metric_type == "accuracy"]
    assert measured.metric_value == round(run.result.test["top1"], 4)
    assert measured.dataset_name == "CSV manifest m.csv"
    text = card.read_text()
    for line in (
        "**RANDOM WEIGHTS: the backbone was never trained, so the answers mean nothing. For benchmarks only.**",
        r'| tops, of all \> kinds | Tank "Top" |',
        r"| \<script\> | =1+1 |",
        r"| tops, of all \> kinds | Mantel länger |",
        f"| top-1 accuracy | {100 * run.result.test['top1']:.2f} % |",
        f"| accuracy of level the group | {100 * run.result.test['level_accuracy/the group']:.2f} % |",
        "On 10 test images, used once, after the epoch was picked on 10 others; one run, seed 0.",
        "| left out | 1 without features |",
        f"| digest of its weights | {run.result.cache.weights_digest} |",
        r"| settings other than the method's, decode and β | reduced 16, dropout 0.1, epochs 2, ",
        f"| temperature, fitted on validation | {run.result.calibrated_by:.4f} |",
    ):
        assert line in text, line
    assert "<script>" not in text
