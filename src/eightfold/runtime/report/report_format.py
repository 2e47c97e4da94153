"""Formats numbers in reports: as many digits as they deserve, and always their unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

THIN = "\u202f"  # narrow no-break space, between a number and its unit
MINUS = "\u2212"
NORMAL_95 = 1.959964  # the normal distribution's 97.5% quantile
SHARES = {
    "top1": "top-1",
    "top5": "top-5",
    "agreement-top1": "top-1 agreement",
}  # metrics that are a share of the images
# All that are kept in [0, 1] and written in percent.
PERCENTAGES = {
    **SHARES,
    "map50-95": "mAP50-95",
    "map50": "mAP50",
    "miou": "mIoU",
    "pixel-accuracy": "pixel accuracy",
    "1-mad": "1 - MAD",
    "1-boundary-mad": "1 - MAD at boundaries",
    "agreement-map50": "mAP50 agreement",
    "agreement-map50-95": "mAP50-95 agreement",
    "agreement-iou": "IoU agreement",
    "agreement-mae": "1 - MAE agreement",
    "agreement-cosine": "cosine agreement",
}


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit.

    >>> [quantity(11181642, "count"), quantity(1.5e9, "MACs"), quantity(44.8e6, "bytes"), quantity(3.4121, "ms")]
    ['11.2\\u202fM', '1.50\\u202fG', '44.8\\u202fMB', '3.41\\u202fms']
    """
    if value is None:
        return "\u2013"
    match unit:
        case "count" | "MACs":
            return _scaled(value, ("", "k", "M", "G", "T"))
        case "bytes":
            return _scaled(value, ("B", "kB", "MB", "GB", "TB"))
        case "percent":
            return f"{value:.1f}{THIN}%"
        case "times":
            return f"{digits(value)}\u00d7"
        case "ms":
            return f"{digits(value)}{THIN}ms"
        case "seconds":
            return f"{digits(value)}{THIN}s"
    return digits(value)


def digits(value: float | None, significant: int = 3) -> str:
    """At least `significant` digits, never an exponent for numbers a person would write out.

    >>> [digits(0.5), digits(3.14159), digits(1234.5), digits(0.00001234)]
    ['0.500', '3.14', '1,234', '1.23e-05']
    """
    if value is None:
        return "\u2013"
    if value and abs(value) < 1e-3:
        return f"{value:.{significant - 1}e}"
    rounded = abs(float(f"{value:.{significant}g}"))  # 0.9996 is written 1.00, not 1.000
    whole = len(f"{int(rounded)}") if rounded >= 1 else 0
    return f"{value:,.{max(0, significant - whole)}f}"


def milliseconds(value: float | None) -> str:
    """Three decimals below 10 ms, so that columns line up; a dash for a percentile with too few samples."""
    return (
        "\u2013"
        if value is None
        else f"{value:.3f}"
        if value < 10
        else f"{value:.2f}"
        if value < 100
        else f"{value:.1f}"
    )


def signed(value: float | None, decimals: int = 1) -> str:
    """A number with its sign; a dash for None."""
    if value is None:
        return "\u2013"
    text = f"{abs(value):.{decimals}f}"
    if not float(text):
        return f"\u00b1{text}"
    return f"{'+' if value > 0 else MINUS}{text}"


def relative(before: float | None, after: float) -> str:
    """The change from `before` to `after` in percent of `before`.

    >>> relative(200.0, 100.0)
    '\\u221250\\u202f%'
    """
    if not before:
        return ""
    return f"{signed((after - before) / before * 100, 0)}{THIN}%"


def error(value: float | None) -> str:
    """A numeric error: two digits and an exponent, or a plain zero."""
    return "\u2013" if value is None else "0" if value == 0 else f"{value:.1e}"


def is_percentage(metric: str) -> bool:
    """True if a metric is shown in percent."""
    return metric in PERCENTAGES


def metric_label(metric: str) -> str:
    """Label of a metric."""
    return PERCENTAGES.get(metric, metric)


def share_interval(percent: float, images: int, metric: str) -> str:
    """The 95% interval of a share of `images`, in percent, by Wilson's score; empty for other metrics.

    E. B. Wilson, Journal of the American Statistical Association 22 (1927): sound near 100% too, where the usual
    "plus or minus" is not.
    """
    if metric not in SHARES.values() or not images:
        return ""
    share, z2 = percent / 100, NORMAL_95**2
    middle = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = NORMAL_95 / (1 + z2 / images) * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    return f"{max(0.0, 100 * (middle - half)):.1f} to {min(100.0, 100 * (middle + half)):.1f}"


def _scaled(value: float, units: Sequence[str]) -> str:
    step = 0
    while abs(value) >= 999.5 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    text = f"{value:.0f}" if step == 0 else digits(value)
    return f"{text}{THIN}{units[step]}" if units[step] else text
