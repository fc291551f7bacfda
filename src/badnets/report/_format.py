"""Numbers, verdicts and conditions as text: the one place where the reports decide how a figure looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from badnets.core.types import Cell, Estimate, Evidence, Scalar, Verdict
from badnets.report._escape import plain

MINUS = "−"
UNKNOWN = "unknown"
MARKS = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.CONDITIONAL: "◐", Verdict.UNDECIDED: "?"}
MEANINGS = {
    Verdict.HOLDS: "the whole interval of every cell lies on the claimed side of the margin",
    Verdict.FAILS: "the whole interval of every cell lies on the other side",
    Verdict.CONDITIONAL: "it depends: some cells hold and others fail",
    Verdict.UNDECIDED: "the intervals are too wide, or too little was measured, to say",
}
_SHARES = ("rate", "share", "opacity", "area", "fraction")
_NO_SHARES = ("learning rate",)


def verdict(value: Verdict | None) -> str:
    """Mark and word, so that the colour is never needed: `✓ HOLDS`; a descriptive cell has none."""
    return "descriptive" if value is None else f"{MARKS[value]} {value.value}"


def figure(estimate: Estimate | None, unit: str) -> str:
    """Value with interval: `99.8 % [99.5, 99.9]`, `−0.12 points [−0.50, +0.26]`, `unknown`."""
    if estimate is None or estimate.value is None:
        return UNKNOWN
    return f"{value(estimate, unit)} {interval(estimate, unit)}".rstrip()


def value(estimate: Estimate, unit: str) -> str:
    """The value alone, with its unit."""
    if estimate.value is None:
        return UNKNOWN
    return f"{_number(estimate.value, unit, _decimals(estimate, unit))}{_suffix(unit)}"


def interval(estimate: Estimate, unit: str) -> str:
    """The interval alone, in the unit of the value; empty when there is no value."""
    if estimate.value is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return "" if estimate.method == "by definition" else "[no interval]"
    decimals = _decimals(estimate, unit)
    return f"[{_number(estimate.low, unit, decimals)}, {_number(estimate.high, unit, decimals)}]"


def scaled(number: float, unit: str) -> float:
    """`number` as it is shown: rates and points in hundredths."""
    return 100 * number if unit in ("rate", "points") else number


def axis_unit(unit: str) -> str:
    """What stands in brackets behind an axis title."""
    return {"rate": "%", "points": "points", "": ""}.get(unit, plain(unit))


def per_seed(cell: Cell) -> str:
    """The values of the single seeds, in the unit and with the decimals of the cell."""
    decimals = _decimals(cell.estimate, cell.unit)
    return ", ".join(_number(v, cell.unit, decimals) for v in cell.per_seed)


def sample(estimate: Estimate) -> str:
    """How much is behind an estimate: `n = 4,000, 3 seeds`."""
    return f"n = {estimate.n:,}, {plural(estimate.num_seeds, 'seed')}"


def plural(count: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def scalar(key: str, item: Scalar) -> str:
    """One value of a condition; shares are shown in %."""
    if item is None:
        return "none"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int | float):
        return f"{_general(100 * item)} %" if is_share(key, item) else _general(item)
    return plain(item)


def is_share(key: str, item: object) -> bool:
    """Whether a condition's number is a share of something: a float in 0..1 whose name says so (an integer is a count)."""
    name = words(key).lower()
    return (
        isinstance(item, float)
        and 0 <= item <= 1
        and (name.endswith(_SHARES) or name.startswith("share of "))
        and not name.endswith(_NO_SHARES)
    )


def words(key: str) -> str:
    """A key as words: `poison_rate` -> `poison rate`."""
    return plain(key.replace("_", " "))


def condition(conditions: Mapping[str, Scalar]) -> str:
    """`poison rate 10 %, mapping: all_to_one`; the default setting when nothing was varied."""
    return ", ".join(f"{words(k)}{':' if isinstance(v, str) else ''} {scalar(k, v)}" for k, v in conditions.items()) or "default setting"


def size(num_bytes: int) -> str:
    """`812 B`, `84.2 KiB`, `1.31 MiB`, `2.40 GiB`."""
    if num_bytes < 1024:
        return f"{num_bytes} B"
    if num_bytes < 1024**2:
        return f"{num_bytes / 1024:.1f} KiB"
    return f"{num_bytes / 1024**2:.2f} MiB" if num_bytes < 1024**3 else f"{num_bytes / 1024**3:.2f} GiB"


def short_time(seconds: float) -> str:
    """`12.3 µs`, `1.42 ms`, `2.50 s`: three digits, for one image or one net; `16 min 40 s` from a thousand seconds on."""
    if seconds >= 1000:
        return duration(seconds)
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds:#.3g}".rstrip(".") + " s"


def passed(state: bool | None) -> str:
    """Whether a step of a story went through; empty where there was nothing to pass."""
    return "" if state is None else f"{MARKS[Verdict.HOLDS]} passed" if state else f"{MARKS[Verdict.FAILS]} refused"


def duration(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def tally(claims: Sequence[Evidence]) -> str:
    """`8 claims were put to the test: 4 hold, 1 fails, 2 are conditional, 1 is undecided.`"""
    count = Counter(claim.verdict for claim in claims)
    phrases = {
        Verdict.HOLDS: ("holds", "hold"),
        Verdict.FAILS: ("fails", "fail"),
        Verdict.CONDITIONAL: ("is conditional", "are conditional"),
        Verdict.UNDECIDED: ("is undecided", "are undecided"),
    }
    parts = [f"{count[v]} {one if count[v] == 1 else many}" for v, (one, many) in phrases.items() if count[v]]
    was = "was" if len(claims) == 1 else "were"
    return f"{plural(len(claims), 'claim')} {was} put to the test" + (f": {', '.join(parts)}." if parts else ".")


def _suffix(unit: str) -> str:
    shown = axis_unit(unit)
    return f" {shown}" if shown else ""


def _decimals(estimate: Estimate, unit: str) -> int:
    """Enough that 99.96 % is not shown as 100 %, and no more than the interval supports."""
    numbers = [abs(scaled(v, unit)) for v in (estimate.value, estimate.low, estimate.high) if v is not None]
    if unit == "rate":
        return 2 if any(v not in (0, 100) and (v < 0.05 or 99.95 <= v < 100) for v in numbers) else 1
    largest = max(numbers, default=0.0)
    if unit == "points":
        return 2 if largest < 10 else 1
    if all(float(v).is_integer() for v in numbers):
        return 0
    return 3 if largest < 10 else 1 if largest < 1000 else 0


def _number(number: float, unit: str, decimals: int) -> str:
    text = f"{scaled(number, unit):{'+' if unit == 'points' else ''},.{decimals}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def _general(number: float) -> str:
    text = f"{number:,}" if isinstance(number, int) else f"{number:.6g}"
    return text.replace("-", MINUS)
