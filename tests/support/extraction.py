"""A small extraction for tests of stage 1: ten regions in eight images, three of which cannot be read."""

from pathlib import Path

from hfc import store
from hfc.config import ExtractConfig, resolve
from tests.support.deepfashion_tree import write_images

TINY = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "precision": "fp32", "store": "float32"}

Cache = tuple[store.Features, store.Table, str]

HEADER = "id,path,label,split,x1,y1,x2,y2"


def config(**changes: object) -> ExtractConfig:
    return resolve(ExtractConfig, {**TINY, "shard_size": 4, **changes})


def write_manifest(tmp_path: Path) -> Path:
    """Ten regions in eight images; rows 3, 6 and 8 cannot be read."""
    write_images(tmp_path, [f"{i}.jpg" for i in range(8)])
    (tmp_path / "3.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:400])
    (tmp_path / "6.jpg").unlink()
    lines = [f"r{i},{i}.jpg,L{i % 2},train,,,," for i in range(8)]
    lines += ["r8,0.jpg,L0,val,70,1,90,5", "r9,0.jpg,L1,test,10,20,50,60"]
    path = tmp_path / "m.csv"
    path.write_text("\n".join([HEADER, *lines]))
    return path


def read(path: Path) -> Cache:
    with store.FeatureStore(path) as cache:
        cache.verify()
        return cache.features(), cache.table(), cache.features_sha256
