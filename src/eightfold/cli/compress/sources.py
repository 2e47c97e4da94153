"""`eightfold sources`."""

from __future__ import annotations


def sources() -> None:
    """List the model sources, with the extra that each needs.

    Example: eightfold sources
    """
    from eightfold.text_table import text_table
    from eightfold.zoo.sources.registry import SOURCES

    rows = [(source.form, f"[{source.extra}]", source.gives) for source in SOURCES]
    print("\n".join(text_table([("source", "extra", "what it loads"), *rows], left={0, 1, 2})))
