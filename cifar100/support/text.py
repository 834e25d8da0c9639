"""Formatting and escaping of text. Names from data (files, folders, classes) are untrusted."""


def escape_control_chars(text: object) -> str:
    """`str(text)` with control characters (escape codes, line breaks, text direction) shown as `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def escape_lines(text: object) -> str:
    """`escape_control_chars` for text of several lines: line breaks are kept."""
    return "\n".join(escape_control_chars(line) for line in str(text).split("\n"))


def csv_cell(text: object) -> str:
    """`escape_control_chars(text)`, behind an apostrophe if a spreadsheet would take it for a formula."""
    shown = escape_control_chars(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA_SIGNS) else shown


def setting_text(value: object) -> str:
    """A setting's value as its flag takes it: the elements of a list separated by spaces; "none" if it is empty."""
    return (" ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)


def format_bytes(size: int) -> str:
    """1.4 GiB, 20.0 MiB."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def counted(count: int, noun: str) -> str:
    """1 image, 1,000 images."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number_range(lowest: int, highest: int) -> str:
    """500, or 9 to 1,100."""
    return f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"


def duration(seconds: float) -> str:
    """1:02:03 from an hour on, 2:03 below."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


_FORMULA_SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # tabs and line breaks are escaped before
