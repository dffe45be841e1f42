"""Units of measurement and durations."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.language.units import BASES, KELVIN, NONE, convert, describe, duration, parse, ratio, same_dimension

TABLE = """
mm/s m3/h kg/m3 L/min 1/min m/s2 °C degC °F K % ‰ ppm rpm bar mbar kPa Pa MPa hPa psi L l mL hL m3
kg g mg t N kN Nm W kW MW kWh Wh J kJ V mV kV A mA Ah Hz kHz s ms µs min h d pH mS/cm µS/cm S/m mol
mol/L pcs pieces pcs/min NTU °Bx mm cm m km m2 m³ mm² min-1 s⁻¹ °C/min deg rad rad/s deg/s lx dB Ω
kΩ Pa*s mPa·s kg/h t/h L/h W/m2/K mmH2O g/L km/h
"""
PLANT = TABLE.split()


@pytest.mark.parametrize("text", PLANT)
def test_units_that_plants_use(text):
    unit = parse(text)
    assert unit.name == text
    assert len(unit.dimension) == len(BASES)
    assert unit.factor > 0
    assert convert(3.5, unit, unit) == 3.5


@pytest.mark.parametrize(
    ("value", "source", "target", "result"),
    [
        (20_000, "mL", "L", 20),
        (1, "m3/h", "L/min", 1000 / 60),
        (120, "rpm", "Hz", 2),
        (120, "rpm", "1/min", 120),
        (25, "°C", "K", 298.15),
        (0, "K", "°C", -273.15),
        (212, "°F", "°C", 100),
        (-40, "°C", "degF", -40),
        (10, "°C/min", "K/s", 10 / 60),
        (1.5, "bar", "kPa", 150),
        (1, "kWh", "kJ", 3600),
        (50, "%", "", 0.5),
        (5, "mS/cm", "S/m", 0.5),
        (36, "km/h", "m/s", 10),
        (1, "Nm", "J", 1),
        (1, "t", "kg", 1000),
        (1, "psi", "Pa", 6894.757293168361),
        (180, "deg", "rad", 3.141592653589793),
    ],
)
def test_conversion(value, source, target, result):
    assert convert(value, parse(source), parse(target)) == result


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("L", "kg"),
        ("rpm", "rad/s"),
        ("pcs", "kg"),
        ("pH", ""),
        ("NTU", "%"),
        ("W", "J"),
        ("mm/s", "mm/s2"),
        ("°C", "K/s"),
    ],
)
def test_other_dimensions_are_refused(a, b):
    assert not same_dimension(parse(a), parse(b))
    with pytest.raises(ValueError, match="is not"):
        convert(1, parse(a), parse(b))


@given(st.sampled_from(PLANT), st.sampled_from(PLANT), st.floats(-1e9, 1e9))
def test_conversion_there_and_back(a, b, value):
    source, target = parse(a), parse(b)
    if same_dimension(source, target):
        k, c = ratio(source, target)
        back, back_c = ratio(target, source)
        assert k * back == 1
        assert (Fraction(value) * k + c) * back + back_c == Fraction(value)
        assert convert(value, source, target) == float(Fraction(value) * k + c)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Kg", "no unit `Kg`: did you mean `kg`"),
        ("KW", "did you mean `kW`"),
        ("Mpa", "did you mean `MPa`"),
        ("liter", "did you mean `L`"),
        ("celsius", "did you mean `°C`"),
        ("foo", "no unit `foo`"),
        ("m/", "ends too soon"),
        ("/m", "a unit is expected before `/m`"),
        ("m//s", "a unit is expected before `/s`"),
        ("m22", "expected before `22`"),
        ("W/(m2)", "expected before `(m2)`"),
        ("m" * 1000, "too long"),
        ("\0", "no unit"),
    ],
)
def test_what_is_no_unit(text, message):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert message in str(caught.value)


@given(st.text(max_size=50) | st.text("mskgL/*·^-123°C%³h ", max_size=20))
def test_any_text_is_a_unit_or_an_error_for_a_person(text):
    try:
        unit = parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert unit.name == text.strip()


def test_products_and_quotients():
    assert parse("L") / parse("min") == parse("L/min")
    assert (parse("L/min") * parse("min")).dimension == parse("L").dimension
    assert parse("kg") / parse("kg") == NONE
    assert (parse("m") / parse("m/s")).name == "m/(m/s)"
    assert (NONE / parse("s")).name == "1/s"
    assert (parse("N") * NONE) == parse("N")
    with pytest.raises(TypeError, match="zero of its own"):
        parse("°C") * parse("kg")


def test_a_difference_of_temperatures_is_on_no_scale():
    assert same_dimension(KELVIN, parse("K"))
    assert not same_dimension(KELVIN, parse("°C"))
    assert describe(KELVIN) == "K, a difference of temperatures"
    assert describe(parse("L")) == "L, a volume"
    assert describe(NONE) == "no unit"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30 s", 30),
        ("30s", 30),
        ("1.5 min", 90),
        ("250 ms", 0.25),
        ("2 h", 7200),
        ("1 h 30 min", 5400),
        ("1 d 2 h 3 min 4 s 5 ms", 93784.005),
        ("0 s", 0),
        ("0.1 s", 0.1),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("60", "60 has no time unit: did you mean 60 s?"),
        ("12:30", "12 h 30 min"),
        ("1,5 s", "decimal point"),
        ("-3 s", "negative"),
        ("20 kg", "kg, a mass, is no time"),
        ("30 S", "did you mean `30 s`?"),
        ("3 MIN", "did you mean"),
        ("5 MS", "did you mean `5 ms`?"),
        ("30 min 1 h", "larger unit comes first"),
        ("30 seconds", "did you mean `s`?"),
        ("1 h 30", "is no duration"),
        ("99999999 h", "10 years"),
        ("", "write `30 s`"),
        ("soon", "write `30 s`"),
        ("9" * 5000 + " s", "too long"),
    ],
)
def test_what_is_no_duration(text, message):
    with pytest.raises(ValueError) as caught:
        duration(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["3 kg", "20 V", "5 L"])
def test_what_is_no_time_in_any_spelling_has_no_such_hint(text):
    with pytest.raises(ValueError, match=r"is no time$"):
        duration(text)


@given(st.text(max_size=50) | st.text("0123456789. smhind-:,", max_size=20))
def test_any_text_is_a_duration_or_an_error_for_a_person(text):
    try:
        assert duration(text) >= 0
    except ValueError as error:
        assert str(error)
