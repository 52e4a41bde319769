"""DeepFashion's layouts, and what is wrong with them in the wild."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from hfc.datasets import read_regions
from hfc.datasets.deepfashion import MARKER, recognise
from hfc.datasets.reading import read_bytes
from hfc.errors import ConfigError, DatasetError
from hfc.regions import Regions
from tests.datasets.test_archives import pack
from tests.support.deepfashion_tree import (
    ITEMS,
    Item,
    categories,
    write_annotations,
    write_images,
    write_large_tree,
    write_table,
    write_tree,
)
from tests.support.splits import read_drawn


def read(source: Path, *, outside_root: bool = False) -> Regions:
    return read_regions(source, outside_root=outside_root)


def rows(regions: Regions) -> list[tuple[object, ...]]:
    columns = (regions.id, regions.path, map(tuple, regions.box.tolist()), regions.label, regions.split)
    return list(zip(*columns, strict=True))


EXPECTED = [(name, name, box, {41: "Dress", 26: "Jeans", 18: "Tee"}[label], split) for name, label, box, split in ITEMS]


@pytest.mark.parametrize("annotations", ["Anno", "Anno_coarse"])
@pytest.mark.parametrize("images", ["Img", ".", "Img/img-001", "img"])
def test_every_layout_gives_the_same_rows(annotations: str, images: str, tmp_path: Path) -> None:
    regions = read(write_tree(tmp_path, annotations=annotations, images=images))
    assert rows(regions) == EXPECTED
    assert regions.origin == "DeepFashion"
    assert all((regions.root / path).is_file() for path in regions.path)


def test_rows_in_another_order_are_joined_by_name(tmp_path: Path) -> None:
    write_tree(tmp_path)
    for file in (tmp_path / "Anno" / "list_bbox.txt", tmp_path / "Eval" / "list_eval_partition.txt"):
        lines = file.read_text().splitlines()
        file.write_text("\n".join(lines[:2] + lines[:1:-1]))
    assert rows(read(tmp_path)) == EXPECTED


def write_fine(root: Path, items: Sequence[Item]) -> Path:
    fine = root / "Anno_fine"
    names = [f"{n:15}{t}" for n, t in categories()]
    write_table(fine / "list_category_cloth.txt", "category_name  category_type", names)
    for split in ("train", "val", "test"):
        here = [item for item in items if item[3] == split]
        (fine / f"{split}.txt").write_text("".join(f"{item[0]}\n" for item in here))
        (fine / f"{split}_cate.txt").write_text("".join(f"{item[1]} \n" for item in here))
        (fine / f"{split}_bbox.txt").write_text("".join(" ".join(map(str, item[2])) + "\n" for item in here))
    write_images(root, [item[0] for item in items])
    return fine


@pytest.mark.parametrize("from_root", [True, False])
def test_the_fine_grained_split_is_read(from_root: bool, tmp_path: Path) -> None:
    fine = write_fine(tmp_path, ITEMS)
    regions = read(tmp_path if from_root else fine)
    assert rows(regions) == sorted(EXPECTED, key=lambda row: ("train", "val", "test").index(str(row[4])))
    assert regions.origin == "DeepFashion, fine-grained split"
    (fine / "val_cate.txt").write_text("")
    with pytest.raises(DatasetError, match=r"val_cate.txt: expected 1 rows as in val.txt, found 0"):
        read(fine)


def test_the_folder_of_an_image_is_its_item(tmp_path: Path) -> None:
    groups = {item[0]: item[0].rpartition("/")[0] for item in ITEMS}
    assert groups[ITEMS[0][0]] == "img/Red_Dress"
    for regions in (read(write_tree(tmp_path / "a")), read(write_fine(tmp_path / "b", ITEMS))):
        assert dict(zip(regions.id, regions.group, strict=True)) == groups
    flat: list[Item] = [("one.jpg", 18, (1, 1, 59, 40), "train")]
    assert read(write_tree(tmp_path / "c", flat)).group.tolist() == [""]


def many(items: int = 30, pictures: int = 5) -> list[Item]:
    """Items of two categories; the official split has pictures of each in several splits."""
    splits = ("train", "val", "test")
    return [
        (f"img/Item_{i}/img_{picture:08d}.jpg", 18 if i % 2 else 41, (1, 1, 59, 79), splits[picture % 3])
        for i in range(items)
        for picture in range(pictures)
    ]


@pytest.mark.parametrize("write", [write_tree, write_fine])
def test_the_item_split_parts_no_item(write: Callable[..., Path], tmp_path: Path) -> None:
    write(tmp_path, many())
    official, item = (read_drawn(tmp_path, split=split) for split in ("official", "item"))
    assert item.split.tolist() != official.split.tolist()
    for column in ("id", "path", "label", "group"):
        assert getattr(item, column).tolist() == getattr(official, column).tolist()
    for regions, most in ((official, 3), (item, 1)):
        kinds = {name: set(regions.split[regions.group == name]) for name in set(regions.group)}
        assert len(kinds) == 30
        assert max(map(len, kinds.values())) == most
    for label in ("Tee", "Dress"):
        assert set(item.split[item.label == label]) == {"train", "val", "test"}
    assert item.origin == f"{official.origin}, item split"
    assert (item.root, item.digest) == (official.root, official.digest)


def test_the_official_split_is_drawn_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tree(tmp_path, many())
    assert read_drawn(tmp_path).split.tolist() == read(tmp_path).split.tolist() == [item[3] for item in many()]
    assert caplog.messages == []


def test_an_item_split_is_refused_where_there_is_no_official_one(tmp_path: Path) -> None:
    (tmp_path / "photos" / "Tee").mkdir(parents=True)
    (tmp_path / "photos" / "Tee" / "a.jpg").touch()
    (tmp_path / "m.csv").write_text("path,label\na.jpg,Tee\n")
    for name, origin in (("photos", "folder tree photos"), ("m.csv", "CSV manifest m.csv")):
        with pytest.raises(ConfigError) as caught:
            read_drawn(tmp_path / name, split="item")
        assert str(caught.value) == (
            f"split: item is for DeepFashion, which has an official split; found a {origin}: give --group, and rows "
            "of one group are drawn into one split"
        )


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return change


def drop(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def shifted(root: Path) -> None:
    names = [f"{n:15}{t}" for n, t in categories() if n not in ("Cape", "Nightdress", "Shirtdress", "Sundress")]
    write_table(root / "Anno" / "list_category_cloth.txt", "category_name  category_type", names)


IMG, BOX = "Anno/list_category_img.txt", "Anno/list_bbox.txt"
TEE = "img/Plain_Tee/img_00000001.jpg"
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "file missing": (drop(BOX), r"list_bbox.txt: annotation file is missing"),
    "partition missing": (drop("Eval/list_eval_partition.txt"), r"list_eval_partition.txt: annotation file is missing"),
    "count": (edit(IMG, "4\n", "5\n"), r"list_category_img.txt: row 1 announces 5 rows, found 4"),
    "no count": (
        edit(IMG, "4\n", "four\n"),
        r"list_category_img.txt: row 1: expected the number of rows, found 'four'",
    ),
    "category": (edit(IMG, "    26", "    51"), r"row 5: unknown category, expected 1 to 50, found '51'"),
    "46 categories": (shifted, r"list_category_cloth.txt: expected the benchmark's 50 categories, found 46"),
    "split": (
        edit("Eval/list_eval_partition.txt", " val", " dev"),
        r"list_eval_partition.txt: row 4: expected train, val or test, found 'dev'",
    ),
    "image twice": (edit(IMG, TEE, ITEMS[0][0]), rf"list_category_img.txt: {ITEMS[0][0]} is listed twice"),
    "two boxes": (edit(BOX, TEE, ITEMS[0][0]), r"list_bbox.txt: row 6: .* was listed before, with other values"),
    "no box": (edit(BOX, TEE, "img/else.jpg"), rf"list_bbox.txt: has no row for {TEE}"),
    "box of words": (
        edit(BOX, "005 002", "005 two"),
        r"list_bbox.txt: row 3: expected x1 y1 x2 y2 .* '005 two 055 078'",
    ),
    "short row": (edit(BOX, f"{TEE:60} 001 001 059 040", TEE), r"list_bbox.txt: row 6: expected 5 columns, found 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_annotations_are_refused_with_file_and_row(case: str, tmp_path: Path) -> None:
    change, message = BROKEN[case]
    change(write_tree(tmp_path))
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)


def test_rows_are_counted_in_the_file_that_is_wrong(tmp_path: Path) -> None:
    write_tree(tmp_path)
    file = tmp_path / "Anno" / "list_bbox.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], lines[5].replace("059", "x59"), *lines[2:5]]))
    with pytest.raises(DatasetError, match=r"list_bbox.txt: row 3: expected x1 y1 x2 y2 .* '001 001 x59 040'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (BOX, "003 004", "003 four", "row 4: expected x1 y1 x2 y2 in pixels, found '003 four 030 040'"),
        ("Eval/list_eval_partition.txt", " val", " dev", "row 4: expected train, val or test, found 'dev'"),
    ],
)
def test_rows_are_named_where_image_names_hold_blanks(
    name: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    items: list[Item] = [
        ("img/a.jpg b.jpg", 41, (1, 2, 30, 40), "train"),
        ("img/a.jpg", 41, (3, 4, 30, 40), "val"),
    ]
    edit(name, old, new)(write_tree(tmp_path, items))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_a_count_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    edit(IMG, "4\n", "4" * 5000 + "\n")(write_tree(tmp_path))
    with pytest.raises(DatasetError, match=r"list_category_img.txt: row 1: expected the number .* found '4{100}'$"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["../other.jpg", "img/../../other.jpg", "/{}/other.jpg"])
@pytest.mark.parametrize("fine", [False, True])
def test_a_name_that_leaves_the_folder_is_refused_unless_asked_for(fine: bool, name: str, tmp_path: Path) -> None:
    name = name.format(tmp_path)
    items = [*ITEMS[:2], (name, 18, (1, 1, 59, 40), "train")]
    root = tmp_path / "df"
    file, row = (write_fine(root, items) / "train.txt", 2) if fine else (write_tree(root, items) / IMG, 5)
    with pytest.raises(DatasetError) as caught:
        read(root)
    expected = "expected a path inside the data set's folder, found"
    assert str(caught.value) == f"{file}: row {row}: {expected} {name!r}; give --outside-root to accept it"
    assert name in read(root, outside_root=True).path
    inside = write_tree(tmp_path / "inside", [("img/b/../a..b.jpg", 18, (1, 1, 59, 40), "train")])
    assert read(inside).path.tolist() == ["img/b/../a..b.jpg"]


ODD = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"  # Python ends a line at these too, but a file system does not


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("fine", [False, True])
def test_lines_end_at_newlines_alone(fine: bool, end: str, tmp_path: Path) -> None:
    items: list[Item] = [(f"img/a b/{i}{odd}{i}.jpg", 18, (1, 1, 59, 40), "train") for i, odd in enumerate(ODD)]
    (write_fine if fine else write_tree)(tmp_path, items)
    for file in tmp_path.rglob("*.txt"):
        file.write_bytes(file.read_bytes().replace(b"\n", end.encode()))
    assert read(tmp_path).id.tolist() == [item[0] for item in items]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("fine", [False, True])
def test_lists_may_be_as_an_editor_has_saved_them(fine: bool, encoding: str, tmp_path: Path) -> None:
    (write_fine if fine else write_tree)(tmp_path, ITEMS)
    expected = rows(read(tmp_path))
    for file in tmp_path.rglob("*.txt"):
        file.write_bytes(file.read_text().replace("\n", "\r\n").encode(encoding))
    assert rows(read(tmp_path)) == expected


@pytest.mark.parametrize(
    ("byte", "message"),
    [
        (b"\xe4", "expected UTF-8, found the byte 0xe4; save it in UTF-8 "),
        (b"\0", "expected text, found a NUL character; take it out"),
    ],
)
def test_lists_of_another_encoding_are_refused_with_file_and_row(byte: bytes, message: str, tmp_path: Path) -> None:
    file = write_tree(tmp_path) / IMG
    file.write_bytes(file.read_bytes().replace(b"Plain_Tee", b"Plain_T" + byte + b"e"))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{file}: row 6: {message}")


def test_a_name_too_long_for_the_file_system_is_a_missing_image(tmp_path: Path) -> None:
    for file in (root := write_tree(tmp_path)).rglob("*.txt"):
        file.write_text(file.read_text().replace(ITEMS[0][0], f"img/{'x' * 300}.jpg"))
    assert read(root).path.tolist() == [f"img/{'x' * 300}.jpg", *(item[0] for item in ITEMS[1:])]


def test_missing_images_are_noticed_at_once(tmp_path: Path) -> None:
    write_tree(tmp_path, images="elsewhere")
    tried = ", ".join(str(tmp_path / name) for name in ("Img", ".", "Img/img-001", "img"))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    first = "the first image, img/Red_Dress/img_00000001.jpg"
    assert str(caught.value) == f"{tmp_path}: {first}, lies under none of {tried}; unpack the images there"


@pytest.mark.parametrize("name", ["Img/img.zip", "img.zip"])
def test_images_are_read_where_they_were_downloaded(name: str, tmp_path: Path) -> None:
    write_tree(tmp_path, images="elsewhere")
    images = {item[0]: (tmp_path / "elsewhere" / item[0]).read_bytes() for item in ITEMS}
    (tmp_path / name).parent.mkdir(exist_ok=True)
    pack(tmp_path / name, images)
    regions = read(tmp_path)
    assert (rows(regions), regions.root) == (EXPECTED, tmp_path / name)
    assert [read_bytes(regions.root, path) for path in regions.path] == list(images.values())


def test_images_that_were_unpacked_are_not_read_from_the_archive(tmp_path: Path) -> None:
    write_tree(tmp_path)
    pack(tmp_path / "Img" / "img.zip", {item[0]: b"" for item in ITEMS})
    assert read(tmp_path).root == tmp_path / "Img"


def test_a_damaged_archive_is_the_reason_why_no_image_is_there(tmp_path: Path) -> None:
    write_tree(tmp_path, images="elsewhere")
    (tmp_path / "Img").mkdir()
    pack(tmp_path / "Img" / "img.zip", {"other.jpg": b""})
    with pytest.raises(DatasetError, match=r"lies under none of .*, \S+Img/img\.zip; unpack the images there$"):
        read(tmp_path)
    (tmp_path / "Img" / "img.zip").write_bytes(b"half a download")
    with pytest.raises(
        DatasetError, match=r"img\.zip: cannot be read as a ZIP archive: File is not a zip file; pack or"
    ):
        read(tmp_path)


@pytest.mark.parametrize("there", [{1199}, {777}, {*range(30, 1200)}, {*range(10, 20)}])
@pytest.mark.parametrize("images", ["Img", "Img/img-001"])
def test_some_missing_images_are_no_other_folder(there: set[int], images: str, tmp_path: Path) -> None:
    items: list[Item] = [(f"img/{i:04d}.jpg", 18, (1, 1, 59, 40), "train") for i in range(1200)]
    write_annotations(tmp_path, items)
    for i in there:
        (tmp_path / images / "img").mkdir(parents=True, exist_ok=True)
        (tmp_path / images / items[i][0]).touch()
    regions = read(tmp_path)
    assert (len(regions), regions.root) == (1200, tmp_path / images)


def test_the_folder_that_holds_most_images_is_theirs(tmp_path: Path) -> None:
    write_tree(tmp_path, images="img")
    write_images(tmp_path / "Img", [ITEMS[0][0]])  # a first try at unpacking them
    assert read(tmp_path).root == tmp_path / "img"


@pytest.mark.parametrize("corner", ["nan", "inf", "1e39", "0_5"])  # Python reads 0_5 as 5
def test_deepfashion_boxes_that_are_no_finite_numbers_are_refused_with_file_and_row(
    corner: str, tmp_path: Path
) -> None:
    edit(BOX, "005 002 055 078", f"{corner} 002 055 078")(write_tree(tmp_path))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    file = tmp_path / BOX
    assert str(caught.value) == f"{file}: row 3: expected x1 y1 x2 y2 in pixels, found '{corner} 002 055 078'"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_sample_marker_is_a_dataset_error_that_names_it(content: str, tmp_path: Path) -> None:
    (write_tree(tmp_path) / MARKER).write_text(content)
    with pytest.raises(DatasetError, match=MARKER):
        read(tmp_path)


def test_a_sample_marker_names_the_origin(tmp_path: Path) -> None:
    (write_tree(tmp_path) / MARKER).write_text('{"images": 4, "seed": 7}')
    assert read(tmp_path).origin == "drawn sample (4 pictures, seed 7)"


def test_the_fine_folder_is_recognised_from_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Anno_fine").mkdir()
    monkeypatch.chdir(tmp_path / "Anno_fine")
    assert recognise(Path())


@pytest.mark.slow
def test_annotations_of_full_size_are_read_in_seconds(tmp_path: Path) -> None:
    import time

    write_large_tree(tmp_path, 289_222)
    started = time.process_time()
    regions = read(tmp_path)
    assert len(regions) == 289_222
    assert time.process_time() - started < 30  # seconds, not minutes


Row = tuple[str, str, tuple[float, ...], str]
NAME = st.text(
    st.characters(categories=["Lu", "Ll", "Nd", "Lo"], include_characters=f"_-,{ODD}"), min_size=1, max_size=8
)
EDGE = st.integers(0, 300)
ROW = st.tuples(st.integers(1, 50), st.tuples(EDGE, EDGE, EDGE, EDGE), st.sampled_from(["train", "val", "test"]))
TABLES = ("Anno/list_category_img.txt", "Anno/list_bbox.txt", "Eval/list_eval_partition.txt")


def naive(root: Path) -> list[Row]:
    """The same table, read line by line and joined by name: no checks."""
    columns: list[dict[str, list[str]]] = []
    for table in TABLES:
        lines = [line.decode() for line in (root / table).read_bytes().split(b"\n")]
        width = 4 if "bbox" in table else 1
        rows = [line.rsplit(maxsplit=width) for line in lines[2:] if line.strip()]
        columns.append({row[0]: row[1:] for row in rows})
    names = [name for name, _ in categories()]
    return [
        (image, names[int(label) - 1], tuple(float(edge) for edge in columns[1][image]), columns[2][image][0])
        for image, (label,) in columns[0].items()
    ]


def table_of(regions: Regions) -> list[Row]:
    boxes = [tuple(box) for box in regions.box.tolist()]
    return list(zip(regions.id.tolist(), regions.label.tolist(), boxes, regions.split.tolist(), strict=True))


@hypothesis.settings(max_examples=60)
@hypothesis.given(names=st.lists(NAME, min_size=1, max_size=6, unique=True), rows=st.lists(ROW, min_size=6, max_size=6))
def test_what_the_format_allows_is_read_as_it_stands(names: list[str], rows: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        items = [(f"img/a b/{name}.jpg", *row) for name, row in zip(names, rows, strict=False)]
        write_tree(Path(folder), items)
        want = [(i[0], categories()[i[1] - 1][0], tuple(map(float, i[2])), i[3]) for i in items]
        assert table_of(read(Path(folder))) == want == naive(Path(folder))


DAMAGES = ["drop a line", "double a line", "drop a cell", "add a cell", "text for a cell", "cut", "byte"]


@hypothesis.settings(max_examples=2 * hypothesis.settings.default.max_examples)
@hypothesis.given(table=st.sampled_from(TABLES), damage=st.sampled_from(DAMAGES), data=st.data())
def test_a_damaged_line_is_refused_or_read_as_it_stands(table: str, damage: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_tree(Path(folder))
        file = root / table
        lines = file.read_text().splitlines()
        at = data.draw(st.integers(0, len(lines) - 1))
        cells = lines[at].split()
        if damage == "drop a line":
            del lines[at]
        elif damage == "double a line":
            lines.insert(at, lines[at])
        elif damage == "drop a cell":
            lines[at] = " ".join(cells[:-1])
        elif damage == "add a cell":
            lines[at] += " 7"
        elif damage == "text for a cell":
            lines[at] = " ".join([*cells[:-1], data.draw(NAME)])
        content = ("\n".join(lines) + "\n").encode()
        if damage == "cut":
            content = content[: data.draw(st.integers(0, len(content)))]
        elif damage == "byte":
            place = data.draw(st.integers(0, len(content) - 1))
            content = content[:place] + bytes([data.draw(st.integers(0, 255))]) + content[place + 1 :]
        file.write_bytes(content)
        message = ""
        try:
            got = table_of(read(root))
        except DatasetError as error:
            message = str(error)
        # Named is the file that breaks its format, or the one that lacks what the damaged one now says.
        named = any(Path(name).name in message for name in TABLES) or "lies under none of" in message
        assert named if message else got == naive(root)
