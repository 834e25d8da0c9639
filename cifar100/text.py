"""Names that come from data (files, folders, classes) are text, never instructions to a terminal."""


def printable(text: object) -> str:
    """`str(text)` with what a terminal would act on (escape codes, line breaks, text direction) shown as `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
