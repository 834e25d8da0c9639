"""Names that come from data (files, folders, classes) are text, never instructions to a terminal."""


def printable(text: object) -> str:
    """`str(text)` with what a terminal would act on (escape codes, line breaks, text direction) shown as `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def csv_cell(text: object) -> str:
    """`printable(text)`, in a form that no spreadsheet takes for a formula: an apostrophe before its first sign."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA_SIGNS) else shown


_FORMULA_SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # a tab or a line break at the start is shown already
