"""Kubernetes quantities: what they are worth, and how the API server writes them."""

import pytest

from deepscaler.quantities import canonical_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250m", 0.25),
        ("1.5", 1.5),
        ("2", 2.0),
        (2, 2.0),
        ("64Mi", 2**26),
        ("1G", 1e9),
        ("1E", 1e18),
        ("123456789n", 0.123456789),
        ("2e3", 2000.0),
        ("-0.1", -0.1),
    ],
)
def test_a_quantity_is_a_number_with_a_suffix(text, value):
    assert float(parse_quantity(text)) == value


@pytest.mark.parametrize("text", ["much", "", "m", "1X", "NaN", "Infinity"])
def test_what_is_no_quantity_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=f"'{text}' is not a Kubernetes quantity such as 100m, 0.1 or 64Mi"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.1", "100m"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("-0.1", "-100m"),
        ("0", "0"),
        ("1e3", "1k"),
        ("64Mi", "64Mi"),
        ("0.0005", "500u"),
        ("0.1n", "1n"),
    ],
)
def test_quantities_are_written_as_the_api_server_writes_them(text, canonical):
    assert canonical_quantity(text) == canonical
