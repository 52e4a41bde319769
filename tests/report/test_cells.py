"""How numbers are written in a report."""

import pytest

from hfc.report.cells import Cell, Table, p_text, plus_minus, signed


@pytest.mark.parametrize(
    ("values", "scale", "digits", "expected"),
    [
        ([0.92, 0.90, 0.91], 100, 2, "91.00 ± 1.00"),  # the deviation of a sample: 1, not 0.82
        ([0.5], 100, 2, "50.00"),
        ([], 100, 2, "–"),
        ([1.0, 2.0], 1, 3, "1.500 ± 0.707"),
    ],
)
def test_mean_and_deviation(values: list[float], scale: float, digits: int, expected: str) -> None:
    assert plus_minus(values, scale, digits) == expected
    assert plus_minus(values, scale, digits, sign=" +- ") == expected.replace("±", "+-")


def test_a_p_is_written_as_papers_do() -> None:
    assert [p_text(p) for p in (0.0, 0.00099, 0.001, 0.0496, 1.0)] == ["< 0.001", "< 0.001", "0.001", "0.050", "1.000"]


def test_a_difference_has_its_sign_in_points() -> None:
    assert [signed(value) for value in (0.0123, -0.5, 0.0)] == ["+1.23", "−50.00", "+0.00"]


def test_a_column_is_numeric_where_any_cell_is() -> None:
    rows = ((Cell("a"), Cell("1", 1.0)), (Cell("b"), Cell("–")))
    assert Table("name", "title", ("x", "y"), rows).numeric == (False, True)
