"""The units that change a value: known units of known quantities.

Any other label beside a number ("apples", "values") is ignored.
"""

import re
from collections import Counter
from fractions import Fraction

_TABLE = {
    "length": "mm .001 millimeter .001 cm .01 centimeter .01 m 1 meter 1 km 1000 kilometer 1000 "
    "in .0254 inch .0254 inches .0254 ft .3048 foot .3048 feet .3048 yd .9144 yard .9144 "
    "mi 1609.344 mile 1609.344",
    "mass": "mg .000001 g .001 gram .001 kg 1 kilogram 1 oz .028349523125 ounce .028349523125 "
    "lb .45359237 lbs .45359237 pound .45359237",
    "time": "s 1 sec 1 second 1 min 60 minute 60 h 3600 hr 3600 hour 3600 day 86400 week 604800",
    "months": "month 1 year 12",  # Of no fixed number of days.
    "volume": "ml .001 milliliter .001 l 1 liter 1 litre 1 pint .473176473 quart .946352946 "
    "gallon 3.785411784",
    "money": "cent .01 dollar 1 usd 1",
    "celsius": "celsius 1",
    "fahrenheit": "fahrenheit 1",
    "morning": "am 1",
    "afternoon": "pm 1",
}
UNITS = {
    name: (quantity, Fraction(factor))
    for quantity, row in _TABLE.items()
    for name, factor in zip(*[iter(row.split())] * 2, strict=True)
}
_SPELLINGS = {
    "mph": "mi/h",
    "kph": "km/h",
    "kmh": "km/h",
    "degrees c": "celsius",
    "degrees f": "fahrenheit",
    "degrees celsius": "celsius",
    "degrees fahrenheit": "fahrenheit",
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_MAX_POWER = 9  # Larger powers ("cubic cubic cubic ...") are not units, and slow to compute.

_NAME = re.compile(r"([a-z]+)(?:\^(-?[0-9]))?")


def unit_of(label: str) -> tuple[str, Fraction] | None:
    """Returns the quantity a label measures and its size in that quantity's first unit.

    Reads products, powers and quotients of units: `sq ft`, `cm^2`, `km/h`, `miles per hour`.
    """
    label = label.lower().strip(" .")
    powers: Counter[str] = Counter()
    size = Fraction(1)
    for index, part in enumerate(re.split(r"\s*/\s*|\s+per\s+", _SPELLINGS.get(label, label))):
        power = sign = -1 if index else 1
        for word in part.split():
            if word in _POWERS:
                power *= _POWERS[word]
                continue
            match = _NAME.fullmatch(word)
            if match is None:
                return None
            name = match[1] if match[1] in UNITS else match[1].removesuffix("s")
            if name not in UNITS:
                return None
            quantity, factor = UNITS[name]
            power *= int(match[2] or 1)
            if abs(power) > _MAX_POWER:
                return None
            powers[quantity] += power
            size *= factor**power
            power = sign
    names = " ".join(f"{name}^{power}" for name, power in sorted(powers.items()))
    return (names, size) if names else None
