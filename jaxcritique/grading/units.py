"""The units that change a value: same quantity in another unit, or another quantity altogether.

Any other label beside a number ("apples", "values") says nothing and is ignored.
"""

import re
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
    "morning": "am 1",
    "afternoon": "pm 1",
}
UNITS = {
    name: (quantity, Fraction(factor))
    for quantity, row in _TABLE.items()
    for name, factor in zip(*[iter(row.split())] * 2, strict=True)
}
_SPEEDS = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def unit_of(label: str) -> tuple[str, Fraction] | None:
    """Returns the quantity a label measures and its size in that quantity's first unit."""
    parts = re.split(r"\s*/\s*|\s+per\s+", _SPEEDS.get(label.lower().strip(" ."), label))
    if len(parts) == 2:
        above, below = unit_of(parts[0]), unit_of(parts[1])
        return above and below and (f"{above[0]}/{below[0]}", above[1] / below[1])
    words = label.lower().strip(" .").split()
    power = 1
    if len(words) == 2 and words[0] in _POWERS:
        power, words = _POWERS[words[0]], words[1:]
    match = re.fullmatch(r"([a-z.]+?)(?:\^\{?([23])\}?)?", words[0]) if len(words) == 1 else None
    if match is None:
        return None
    name = match[1] if match[1] in UNITS else match[1].removesuffix("s")
    if name not in UNITS:
        return None
    power = int(match[2]) if match[2] else power
    quantity, factor = UNITS[name]
    return f"{quantity}^{power}", factor**power
