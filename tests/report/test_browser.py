"""The page in a real browser: opened from the disk, on a phone and on a desk, it asks nobody and goes wrong nowhere."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hfc.report import write_comparison, write_report
from hfc.report.review_page import write_review
from tests.report.test_gallery import picture
from tests.support.made_runs import TREE as MADE
from tests.support.made_runs import tree_of, two_methods, write_run
from tests.support.made_up import write_cache
from tests.support.reviews import held_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
CI = "CI" in os.environ  # which must have them

if CI:
    from selenium import webdriver
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select
else:
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium here (extra test)")
    Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    Select = pytest.importorskip("selenium.webdriver.support.ui").Select

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not CI, reason="no Chromium here (Debian: chromium and chromium-driver)"
)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
HOSTILE = '<script>document.title="run"</script>'
TREE = f'leaf,group\n"{HOSTILE.replace(chr(34), chr(34) * 2)}",<b>tops</b>\nTank,<b>tops</b>\nJeans,trousers\n'
TWO = MADE.replace("Hat,hats", "Hat,tops")
SIZES = {"phone": (390, 844), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with pictures and a comparison, of runs whose categories and files have hostile names."""
    folder = tmp_path_factory.mktemp("browser")
    tree = tree_of(folder / "t<i>.csv", TREE)
    names = [f"images/<img src=x onerror=alert({i})>.jpg" for i in range(60)]
    two_methods(folder / "runs", tree, ids=names, cache__origin="DeepFashion <script>alert(1)</script>")
    for name in names:
        picture(folder / "root" / name, (0, 90, 160))
    write_report([folder / "runs"], folder / "report", images=folder / "root")
    write_comparison(folder / "runs", folder / "runs", folder / "report")
    cache = write_cache(folder / "c.h5", ["Tank", "Jeans", HOSTILE] * 4, ["train"] * 12)
    picture(folder / "root" / "00000.jpg", (0, 90, 160))
    held = held_of(cache, tree, {0: HOSTILE, 1: "Tank", 2: "Jeans"})
    write_review(held, cache, folder / "report" / "review", images=folder / "root")
    return folder / "report"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER or "chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def open_page(browser: Any, page: Path, size: str = "desk", scheme: str = "light", scripts: bool = True) -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before
    browser.get(page.as_uri())


def requests(browser: Any) -> set[str]:
    """Every address that was asked for since the page was opened, but data: in it."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked
    return {url for url in asked if not url.startswith("data:")}


@pytest.mark.parametrize("name", ["report.html", "compare.html", "review/review.html"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_asks_nobody_and_complains_of_nothing(
    name: str, size: str, scheme: str, place: Path, browser: Any
) -> None:
    open_page(browser, place / name, size, scheme)
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner == SIZES[size][0]
    for element in browser.find_elements("css selector", "summary"):
        element.click()
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= inner
    assert browser.get_log("browser") == []
    assert requests(browser) == {(place / name).as_uri()}
    lightness = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(lightness) > 128) == (scheme == "light")


def column(browser: Any, table: str, number: int) -> list[str]:
    cells = browser.find_elements("css selector", f"{table} tbody tr > :nth-child({number})")
    return [cell.text for cell in cells]


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Numbers in a name count as numbers: (5) comes before (10)."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part.lower()) for part in re.split(r"(\d+)", name)]


def test_a_click_sorts_a_table_and_another_one_turns_it_round(place: Path, browser: Any) -> None:
    open_page(browser, place / "report.html")
    table = "#table1 table"
    before = column(browser, table, 2)
    assert len(before) == 14
    head = browser.find_element("css selector", f"{table} thead th:nth-child(2)")
    head.find_element("css selector", "button").click()
    falling = column(browser, table, 2)
    numbers = [float(text.split(" ± ")[0]) for text in falling]
    assert numbers == sorted(numbers, reverse=True)
    assert sorted(falling) == sorted(before) != falling
    assert head.get_attribute("aria-sort") == "descending"
    head.find_element("css selector", "button").click()
    assert column(browser, table, 2) == falling[::-1]
    assert head.get_attribute("aria-sort") == "ascending"
    browser.find_element("css selector", f"{table} thead th:nth-child(1) button").click()
    names = column(browser, table, 1)
    assert names == sorted(names, key=natural)
    assert head.get_attribute("aria-sort") is None
    browser.find_element("css selector", f"{table} thead th:nth-child(5) button").click()
    seeds = column(browser, table, 5)
    assert seeds == ["3"] * 2 + ["–"] * 12  # what has no number stays last
    assert browser.get_log("browser") == []


def test_hostile_names_are_shown_and_not_run(place: Path, browser: Any) -> None:
    open_page(browser, place / "report.html")
    assert browser.title == "Results"
    assert HOSTILE in column(browser, ".block:has(#table-precision) table", 1)
    assert len(browser.find_elements("css selector", "script")) == 1
    assert browser.find_elements("css selector", "b, i") == []
    images = browser.find_elements("css selector", "img")
    assert images
    assert all(image.get_attribute("src").startswith("data:image/jpeg") for image in images)
    assert browser.execute_script("return [...document.images].filter(i => !i.hidden && !i.complete).length") == 0
    assert "<img src=x onerror=alert(" in images[0].get_attribute("alt")


def test_a_review_shows_hostile_names_and_runs_none(place: Path, browser: Any) -> None:
    open_page(browser, place / "review" / "review.html")
    assert browser.title == "Doubtful labels"
    answers = [element.text for element in browser.find_elements("css selector", "dd.answer")]
    assert f"<b>tops</b> > {HOSTILE} (0.800)" in answers
    assert browser.find_elements("css selector", "script, b, i") == []
    assert len(browser.find_elements("css selector", "img")) == 1


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report of 300 categories under 20 groups, of which one has a name in capitals and accents."""
    folder = tmp_path_factory.mktemp("wide")
    names = "".join(f"leaf {i:03d},{'Été' if i % 20 == 7 else f'group {i % 20:02d}'}\n" for i in range(300))
    write_run(folder / "runs", tree_of(folder / "tree.csv", f"leaf,group\n{names}"), rows=600)
    write_report([folder / "runs"], folder / "out")
    return folder / "out" / "report.html"


def leaves_shown(browser: Any) -> list[str]:
    rows = "[...document.querySelectorAll('.folds tbody tr')].filter((row) => row.checkVisibility())"
    return list(browser.execute_script(f"return {rows}.map((row) => row.cells[0].textContent)"))


@pytest.mark.parametrize("size", SIZES)
def test_a_folded_table_is_searched_by_the_names_of_a_path(size: str, wide: Path, browser: Any) -> None:
    open_page(browser, wide, size)
    field = browser.find_element("css selector", ".find input")
    assert field.accessible_name == "Find by name or path"
    count = browser.find_element("css selector", ".find output")
    first = browser.find_element("css selector", ".folds summary")
    assert leaves_shown(browser) == []
    first.send_keys(Keys.ENTER)  # by the keyboard alone
    opened = [f"leaf {i:03d}" for i in range(0, 300, 20)]
    assert leaves_shown(browser) == opened
    for query, expected in (
        ("LEAF 123", ["leaf 123"]),
        ("ete", [f"leaf {i:03d}" for i in range(7, 300, 20)]),
        ("12 group", [i for i in (f"leaf {i:03d}" for i in range(300)) if "12" in i or int(i[5:]) % 20 == 12]),
        ("nothing", []),
    ):
        field.clear()
        field.send_keys(query)
        expected = [leaf for leaf in expected if query != "12 group" or int(leaf[5:]) % 20 != 7]  # its group is Été
        assert sorted(leaves_shown(browser)) == expected, query
        assert count.text == f"{len(expected)} of 300 rows"
    field.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    assert (leaves_shown(browser), count.text) == (opened, "")
    field.send_keys("l")  # of too many nothing is unfolded
    assert (leaves_shown(browser), count.text) == (opened, "300 of 300 rows")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []


def test_without_script_a_folded_table_has_no_field_and_opens(wide: Path, browser: Any) -> None:
    open_page(browser, wide, scripts=False)
    try:
        assert not browser.find_element("css selector", ".find").is_displayed()
        assert len(browser.find_elements("css selector", ".folds tbody tr")) == 300
        browser.find_element("css selector", ".folds summary").click()
        assert len(leaves_shown(browser)) == 15
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_marks_say_their_value_to_mouse_and_finger(place: Path, browser: Any) -> None:
    open_page(browser, place / "report.html")
    mark = browser.find_element("css selector", "#figure-behind-the-best circle")
    said = mark.find_element("css selector", "title").get_attribute("textContent")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    # until it is scrolled: scrolling takes what is shown away
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))")
    webdriver.ActionChains(browser).move_to_element(mark).perform()
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed()
    assert tip.text == said
    assert "significant" in said
    webdriver.ActionChains(browser).move_to_element(browser.find_element("css selector", "h1")).perform()
    assert not tip.is_displayed()


def test_without_script_it_reads_the_same(place: Path, browser: Any) -> None:
    open_page(browser, place / "report.html", scripts=False)
    try:
        assert len(browser.find_elements("css selector", "table")) >= 8
        assert browser.find_elements("css selector", "thead button:not(.why)") == []  # nothing that would do nothing
        assert len(column(browser, "#table1 table", 1)) == 14
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_paper_shows_what_was_folded(place: Path, browser: Any) -> None:
    open_page(browser, place / "report.html")
    folded = "return document.querySelectorAll('details:not([open])').length"
    assert browser.execute_script(folded) > 0
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(folded) == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(folded) > 0


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report of three methods under two trees, one of them on another cache as well."""
    folder = tmp_path_factory.mktemp("mixed")
    trees = [tree_of(folder / "one.csv"), tree_of(folder / "two.csv", TWO)]
    for tree in trees:
        for i, method in enumerate(("flat", "levels", "hmcn-f")):
            write_run(folder / "runs" / f"{method}-{tree.name}", tree, method=method, skill=1.0 + i)
    small = {"cache__path": "small.h5", "cache__features_sha256": "1" * 64, "cache__image_size": 96}
    write_run(folder / "runs" / "small", trees[0], skill=0.5, **small)
    write_report([folder / "runs"], folder / "out")
    return folder / "out" / "report.html"


def shown_rows(browser: Any, table: str) -> list[str]:
    rows = f"[...document.querySelectorAll('{table} tbody tr')].filter((row) => row.checkVisibility())"
    return list(browser.execute_script(f"return {rows}.map((row) => row.cells[0].textContent)"))


def seen(browser: Any, selector: str) -> list[str]:
    """The texts of some elements, of those that are to be seen."""
    chosen = f"[...document.querySelectorAll('{selector}')].filter((one) => one.checkVisibility())"
    return list(browser.execute_script(f"return {chosen}.map((one) => one.textContent)"))


@pytest.mark.parametrize("size", SIZES)
def test_rows_are_chosen_by_method_tree_and_cache(size: str, mixed: Path, browser: Any) -> None:
    open_page(browser, mixed, size)
    method, tree, cache = (Select(one) for one in browser.find_elements("css selector", ".filter select"))
    assert [option.text for option in method.options] == ["all", "hmcn-f", "levels", "flat"]
    assert [[option.text for option in one.options] for one in (tree, cache)] == [
        ["all", "one", "two"],
        ["all", "made-up", "small"],
    ]
    every = shown_rows(browser, "#best")
    assert len(every) == 7
    count = browser.find_element("css selector", ".filter output")
    for choice, kept in (
        (("levels", "all", "all"), ["levels (one)", "levels (two)"]),
        (("levels", "two", "all"), ["levels (two)"]),
        (("levels", "two", "small"), []),
        (("all", "all", "small"), ["flat (one) 96 px"]),
        (("all", "two", "made-up"), ["hmcn-f (two)", "levels (two)", "flat (two)"]),
    ):
        for select, value in zip((method, tree, cache), choice, strict=True):
            select.select_by_visible_text(value)
        assert sorted(shown_rows(browser, "#best")) == sorted(kept)
        assert sorted(shown_rows(browser, "#hierarchy .wide")) == sorted(kept)
        assert count.text == f"{len(kept)} of 7 rows"
        folds = seen(browser, "#training summary")
        assert sorted(title.partition(": ")[0] for title in folds) == sorted(kept)
    browser.execute_script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    heads = seen(browser, ".block:has(#table-categories) thead th")
    assert len(heads) == 3 + 3  # leaf, group and images, and the rows that are left
    pairs = shown_rows(browser, ".block:has(#table-differences)")
    assert 0 < len(pairs) < 21
    for select in (method, tree, cache):
        select.select_by_visible_text("all")
    assert shown_rows(browser, "#best") == every
    assert count.text == ""
    assert browser.get_log("browser") == []


def test_a_choice_of_rows_outlasts_a_sort(mixed: Path, browser: Any) -> None:
    open_page(browser, mixed)
    Select(browser.find_element("css selector", ".filter select")).select_by_visible_text("levels")
    browser.find_element("css selector", "#best thead th:nth-child(1) .sort").click()
    assert shown_rows(browser, "#best") == ["levels (one)", "levels (two)"]


def test_without_script_all_rows_are_shown_and_nothing_chooses(mixed: Path, browser: Any) -> None:
    open_page(browser, mixed, scripts=False)
    try:
        assert not browser.find_element("css selector", ".filter").is_displayed()
        assert len(browser.find_elements("css selector", "#best tbody tr")) == 7
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_tap_explains_a_word(size: str, scripts: bool, mixed: Path, browser: Any) -> None:
    open_page(browser, mixed, size, scripts=scripts)
    try:
        for word, meaning in (
            ("P_final", "probability, or a score, for each leaf"),
            ("hF", "Hierarchical F1"),
            ("severity", "mean height of the wrong answers"),
            ("height", "levels one has to climb"),
        ):
            button = browser.find_element("css selector", f'.why[aria-label="What is {word}?"]')
            assert button.accessible_name == f"What is {word}?"
            place = browser.find_element("css selector", f"#why-{word.replace('_', '-')}")
            assert not place.is_displayed()
            button.send_keys(Keys.ENTER)  # by the keyboard, and so by a tap
            assert place.is_displayed()
            assert meaning in place.text
            left, right, top = (place.rect["x"], place.rect["x"] + place.rect["width"], place.rect["y"])
            assert left >= 0 <= top
            assert right <= SIZES[size][0]
            browser.find_element("css selector", "body").send_keys(Keys.ESCAPE)
            assert not place.is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_hover_explains_a_word_and_a_click_shows_it_once(mixed: Path, browser: Any) -> None:
    open_page(browser, mixed)
    button = browser.find_element("css selector", '#best .why[aria-label="What is hF?"]')
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))")
    webdriver.ActionChains(browser).move_to_element(button).perform()
    tip, place = browser.find_element("id", "tip"), browser.find_element("id", "why-hF")
    assert "Hierarchical F1" in tip.text
    assert not place.is_displayed()
    button.click()
    assert place.is_displayed()
    assert not tip.is_displayed()


def test_paper_explains_the_words_below_and_has_no_choice(mixed: Path, browser: Any) -> None:
    open_page(browser, mixed)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.find_element("id", "why-hF").is_displayed()
        assert not browser.find_element("css selector", ".filter").is_displayed()
        assert not browser.find_element("css selector", ".why").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_on_a_phone_a_category_has_its_accuracy_beside_it(place: Path, browser: Any) -> None:
    open_page(browser, place / "report.html", "phone")
    cells = browser.find_elements("css selector", ".block:has(#table-precision) tbody tr > :nth-child(2)")
    assert len(cells) == 3
    for cell in cells:
        assert float(cell.text) <= 100
        assert cell.rect["x"] + cell.rect["width"] <= SIZES["phone"][0]
