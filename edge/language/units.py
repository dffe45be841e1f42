"""Units of measurement: the SI (BIPM SI brochure, 9th edition) and what plants use beside it, and durations.

Factors are exact fractions, so that 20000 mL are exactly 20 L. A rotational frequency (rpm, 1/min) is no angular
velocity (rad/s), as in ISO 80000-3; pieces, pH, turbidity and the like are base quantities of their own here.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache

import msgspec

Dimension = tuple[int, ...]
"""Exponents over `BASES`."""

BASES = ("m", "kg", "s", "A", "K", "mol", "cd", "rad", "pcs", "pH", "NTU", "°Bx", "dB")


class Unit(msgspec.Struct, frozen=True):
    """A unit: 1 of it is `factor` in base units, and its zero is at `offset` of them (273.15 K for °C).

    `difference`: a difference of two temperatures, which has no place on a scale (K, never °C).
    """

    name: str
    dimension: Dimension
    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    difference: bool = False

    def __mul__(self, other: "Unit") -> "Unit":
        """The unit of a product. A unit with an offset has none (`TypeError`)."""
        return self._combined(other, 1, "·")

    def __truediv__(self, other: "Unit") -> "Unit":
        """The unit of a quotient. A unit with an offset has none (`TypeError`)."""
        return self._combined(other, -1, "/")

    def _combined(self, other: "Unit", sign: int, between: str) -> "Unit":
        if self.offset or other.offset:
            raise TypeError(f"{self.name if self.offset else other.name} has a zero of its own")
        if other == NONE:
            return self
        dimension = tuple(a + sign * b for a, b in zip(self.dimension, other.dimension, strict=True))
        factor = self.factor * other.factor**sign
        if dimension == NONE.dimension and factor == 1:
            return NONE
        right = f"({other.name})" if sign < 0 and re.search("[·*/]", other.name) else other.name
        left = self.name or ("1" if sign < 0 else "")
        name = f"{left}{between}{right}" if left and right else left or right
        return Unit(name, dimension, factor)


NONE = Unit("", (0,) * len(BASES))
"""No unit: a plain number."""


def _base(index: int, exponent: int = 1) -> Dimension:
    return tuple(exponent if i == index else 0 for i in range(len(BASES)))


_METRIC: dict[str, Unit] = {}
"""Units that take prefixes."""
_OTHER: dict[str, Unit] = {}
"""Units that take none."""

_PREFIXES = {
    "p": Fraction(1, 10**12),
    "n": Fraction(1, 10**9),
    "µ": Fraction(1, 10**6),  # U+00B5
    "μ": Fraction(1, 10**6),  # U+03BC, which the SI means
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "c": Fraction(1, 100),
    "d": Fraction(1, 10),
    "h": Fraction(100),
    "k": Fraction(1000),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
}

_NAME = re.compile(r"[^\W\d_¹²³⁴⁵⁶⁷⁸⁹]+|°[^\W\d_]*|[%‰]")
_EXPONENT = re.compile(r"\^?([+-]?[1-9])(?![0-9])|([⁺⁻]?[¹²³⁴⁵⁶⁷⁸⁹])")
_SUPERSCRIPTS = str.maketrans("⁺⁻¹²³⁴⁵⁶⁷⁸⁹", "+-123456789")
_MAX_LENGTH = 40


def _one(name: str) -> Unit | None:
    """The unit of a name with or without a prefix."""
    if name in _OTHER:
        return _OTHER[name]
    if name in _METRIC:
        return _METRIC[name]
    prefix, rest = name[:1], name[1:]
    if prefix in _PREFIXES and rest in _METRIC:
        unit = _METRIC[rest]
        return Unit(name, unit.dimension, unit.factor * _PREFIXES[prefix])
    return None


@lru_cache(maxsize=1024)
def parse(text: str) -> Unit:
    """`mm/s`, `m3/h`, `kg/m³`, `1/min`, `°C`, "" -> the unit. Raises ValueError with a message for a person."""
    text = text.strip()
    if not text:
        return NONE
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"`{text[:_MAX_LENGTH]}…` is too long for a unit")
    if (unit := _one(text)) is not None:
        return Unit(text, unit.dimension, unit.factor, unit.offset)
    position, sign = 0, 1
    dimension, factor = NONE.dimension, Fraction(1)
    while True:
        unit, position = _part(text, position)
        dimension = tuple(a + sign * b for a, b in zip(dimension, unit.dimension, strict=True))
        factor *= unit.factor**sign
        if position == len(text):
            # °C in a product or quotient is a difference: °C/min is K/min.
            return Unit(text, dimension, factor)
        if text[position] not in "/*·.":
            raise ValueError(f"`{text}` is no unit: `/` or `*` is expected before `{text[position:]}`")
        sign = -1 if text[position] == "/" else 1
        position += 1


def _part(text: str, position: int) -> tuple[Unit, int]:
    """One unit of a product with its exponent, and where it ends."""
    if text.startswith("1/", position) and position == 0:
        return NONE, 1
    match = _NAME.match(text, position)
    if match is None:
        expected = f"a unit is expected before `{text[position:]}`" if position < len(text) else "it ends too soon"
        raise ValueError(f"`{text}` is no unit: {expected}")
    unit = _one(match[0])
    if unit is None:
        raise ValueError(f"no unit `{match[0]}`{_near(match[0])}")
    power = _EXPONENT.match(text, match.end())
    if power is None:
        return unit, match.end()
    exponent = int((power[1] or power[2]).translate(_SUPERSCRIPTS))
    return Unit(text, tuple(exponent * e for e in unit.dimension), unit.factor**exponent), power.end()


def names() -> list[str]:
    """The units that one writes, those with the prefixes and quotients that plants use among them."""
    usual = ("mL", "mm", "kg", "ms", "kPa", "mbar", "kW", "kN", "kHz", "mm/s", "m/s", "L/min", "L/h", "m3/h", "kg/h")
    return sorted({*_METRIC, *_OTHER, *usual}, key=str.casefold)


def is_unit(text: str) -> bool:
    """Whether a text is a unit."""
    try:
        return parse(text) != NONE
    except ValueError:
        return False


def _near(name: str) -> str:
    """`: did you mean …?` for other words and other cases of letters."""
    meant = _WORDS.get(name.casefold())
    if meant is None:
        alike = [known for known in (*_OTHER, *_METRIC) if known.casefold() == name.casefold()]
        alike += [p + known for p in "mkMcdh" for known in _METRIC if (p + known).casefold() == name.casefold()]
        meant = next((known for known in alike if known[0] == name[0]), alike[0] if alike else None)
    return f": did you mean `{meant}`?" if meant else ""


def same_dimension(a: Unit, b: Unit) -> bool:
    """Whether a value in one can be given in the other. A difference of temperatures is on no scale with an offset."""
    return a.dimension == b.dimension and not (a.difference and b.offset) and not (b.difference and a.offset)


@lru_cache(maxsize=1024)
def ratio(source: Unit, target: Unit) -> tuple[Fraction, Fraction]:
    """(k, c): a value x in `source` is k·x + c in `target`. Raises ValueError for other dimensions."""
    if not same_dimension(source, target):
        raise ValueError(f"{describe(source)} is not {describe(target)}")
    return source.factor / target.factor, (source.offset - target.offset) / target.factor


def convert(value: float, source: Unit, target: Unit) -> float:
    """A finite value in another unit, rounded once. Raises ValueError for other dimensions, OverflowError."""
    k, c = ratio(source, target)
    if k == 1 and c == 0:
        return value
    return float(Fraction(value) * k + c)


def quantity(unit: Unit) -> str:
    """What a unit measures, for a message: `a volume`; "" where that has no common name."""
    return "a difference of temperatures" if unit.difference else _QUANTITIES.get(unit.dimension, "")


def describe(unit: Unit) -> str:
    """A unit and what it measures, for a message: `L, a volume`, `1/h2`, `no unit`."""
    named = quantity(unit) if unit.name else ""
    return f"{unit.name}, {named}" if named else unit.name or "no unit"


_MAX_SECONDS = 10 * 366 * 86_400
_PIECE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([^\W\d_]*)")


def duration(text: str) -> float:
    """`30 s`, `250 ms`, `1 h 30 min` -> seconds. Raises ValueError with a message for a person."""
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"`{text[:_MAX_LENGTH]}…` is too long for a duration")
    total, last, position = Fraction(0), None, 0
    while position < len(text) or not position:
        match = _PIECE.match(text, position)
        if match is None:
            raise ValueError(_no_duration(text))
        number, name = match[1], match[2]
        if not name:
            raise ValueError(_no_duration(text))
        unit = parse(name)
        if unit.dimension != _SECOND.dimension:
            lower = _one(name.lower())
            meant = lower is not None and lower.dimension == _SECOND.dimension
            near = f": did you mean `{text.lower()}`?" if meant else ""
            raise ValueError(f"`{text}` is no duration, since {describe(unit)}, is no time{near}")
        if last is not None and unit.factor >= last:
            raise ValueError(f"`{text}` is no duration: the larger unit comes first, as in `1 h 30 min`")
        total, last, position = total + Fraction(number) * unit.factor, unit.factor, match.end()
    if total > _MAX_SECONDS:
        raise ValueError(f"`{text}` is longer than 10 years")
    return float(total)


def _no_duration(text: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return f"{text} has no time unit: did you mean {text} s?"
    if re.fullmatch(r"[0-9]+(:[0-9]+)+", text):
        return f"`{text}` is no duration: write `12 h 30 min` or `12 min 30 s`"
    if re.match(r"[0-9]+,[0-9]", text):
        return f"`{text}` is no duration: the decimal point is `.`"
    if text.startswith("-"):
        return f"`{text}` is no duration: it cannot be negative"
    return f"`{text}` is no duration: write `30 s`, `250 ms` or `1 h 30 min`"


# The table. A line is: names = number unit [unit…]; further names are the same unit.

for _index, _name in enumerate(BASES):
    _METRIC[_name] = Unit(_name, _base(_index))
_METRIC["g"] = Unit("g", _base(1), Fraction(1, 1000))
for _name in ("kg", "pcs", "pH", "NTU", "°Bx", "dB", "rad"):
    _OTHER[_name] = _METRIC.pop(_name)
_METRIC["rad"] = _OTHER.pop("rad")

_TABLE_METRIC = """
L l = 1/1000 m3
N = 1 kg*m/s2
Pa = 1 N/m2
bar = 100000 Pa
J = 1 N*m
W = 1 J/s
Wh = 3600 J
C = 1 A*s
V = 1 W/A
VA = 1 V*A
var = 1 V*A
Ah = 3600 C
F = 1 C/V
Ω Ohm ohm = 1 V/A
S = 1 A/V
Wb = 1 V*s
T = 1 Wb/m2
H = 1 Wb/A
Hz = 1 1/s
lm = 1 cd
lx = 1 lm/m2
Nm = 1 N*m
eq = 1 mol
"""

_TABLE_OTHER = """
min = 60 s
h hr = 3600 s
d = 86400 s
sec = 1 s
t = 1000 kg
% = 1/100
‰ = 1/1000
ppm = 1/1000000
ppb = 1/1000000000
rpm = 1/60 1/s
pc pieces piece = 1 pcs
FNU FTU = 1 NTU
ha = 10000 m2
atm = 101325 Pa
psi = 6894757293168361/1000000000000 Pa
mmHg = 133322387415/1000000000 Pa
mmH2O = 980665/100000 Pa
mH2O = 980665/100 Pa
in = 254/10000 m
ft = 3048/10000 m
lb = 45359237/100000000 kg
oz = 45359237/1600000000 kg
gal = 3785411784/1000000000000 m3
K Kelvin = 1 K
"""


def _read_table(table: str, into: dict[str, Unit]) -> None:
    for line in table.strip().splitlines():
        names, _, meaning = line.partition(" = ")
        number, _, of = meaning.partition(" ")
        unit = parse(of)
        for name in names.split():
            into[name] = Unit(name, unit.dimension, Fraction(number) * unit.factor)


_read_table(_TABLE_METRIC, _METRIC)
_read_table(_TABLE_OTHER, _OTHER)
for _name in ("deg", "°"):
    _OTHER[_name] = Unit(_name, _base(7), Fraction(math.pi) / 180)
for _name in ("°C", "degC", "℃"):
    _OTHER[_name] = Unit(_name, _base(4), Fraction(1), Fraction(27315, 100))
for _name in ("°F", "degF"):
    _OTHER[_name] = Unit(_name, _base(4), Fraction(5, 9), Fraction(45967, 180))

_SECOND = parse("s")
KELVIN = Unit("K", _base(4), difference=True)
"""What the difference of two temperatures is in."""

_WORDS = {
    "barg": "bar",
    "bara": "bar",
    "celsius": "°C",
    "c°": "°C",
    "fahrenheit": "°F",
    "second": "s",
    "seconds": "s",
    "secs": "s",
    "minute": "min",
    "minutes": "min",
    "mins": "min",
    "hour": "h",
    "hours": "h",
    "hrs": "h",
    "day": "d",
    "days": "d",
    "liter": "L",
    "liters": "L",
    "litre": "L",
    "litres": "L",
    "meter": "m",
    "meters": "m",
    "metre": "m",
    "gram": "g",
    "grams": "g",
    "gr": "g",
    "kilo": "kg",
    "kilos": "kg",
    "kilogram": "kg",
    "kgs": "kg",
    "ton": "t",
    "tonne": "t",
    "tons": "t",
    "percent": "%",
    "pct": "%",
    "degree": "deg",
    "degrees": "deg",
    "volt": "V",
    "volts": "V",
    "amp": "A",
    "amps": "A",
    "ampere": "A",
    "watt": "W",
    "watts": "W",
    "kph": "km/h",
    "kmh": "km/h",
    "mps": "m/s",
    "lpm": "L/min",
    "cc": "mL",
    "tr": "rpm",
    "upm": "rpm",
    "stk": "pcs",
    "stück": "pcs",
}

_QUANTITIES: dict[Dimension, str] = {
    parse(text).dimension: named
    for text, named in (
        ("%", "a ratio"),
        ("m", "a length"),
        ("m2", "an area"),
        ("m3", "a volume"),
        ("kg", "a mass"),
        ("s", "a time"),
        ("A", "an electric current"),
        ("K", "a temperature"),
        ("mol", "an amount of substance"),
        ("cd", "a luminous intensity"),
        ("rad", "an angle"),
        ("pcs", "a count"),
        ("pH", "an acidity"),
        ("NTU", "a turbidity"),
        ("°Bx", "a sugar content"),
        ("dB", "a level in decibels"),
        ("m/s", "a speed"),
        ("m/s2", "an acceleration"),
        ("Hz", "a frequency"),
        ("rad/s", "an angular velocity"),
        ("m3/s", "a volume flow"),
        ("kg/s", "a mass flow"),
        ("pcs/s", "a rate of pieces"),
        ("kg/m3", "a density"),
        ("mol/m3", "a concentration"),
        ("N", "a force"),
        ("Pa", "a pressure"),
        ("J", "an energy or a torque"),
        ("W", "a power"),
        ("V", "a voltage"),
        ("Ω", "an electric resistance"),
        ("S", "an electric conductance"),
        ("S/m", "a conductivity"),
        ("C", "an electric charge"),
        ("K/s", "a rate of temperature"),
        ("lx", "an illuminance"),
        ("m2/s", "a viscosity (kinematic)"),
        ("Pa*s", "a viscosity"),
    )
}
