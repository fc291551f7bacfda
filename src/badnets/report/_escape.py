"""One escape function per sink: plain text, JSON inside a script element, Markdown, SARIF. HTML itself is escaped by jinja2."""

from __future__ import annotations

import json
import re
import unicodedata

LONGEST = 2_000
_JOINERS = "\u200c\u200d"
_MARKDOWN = re.compile(r"[\\`*|~$]|(?<!\w)_|_(?!\w)|](?=[\[(:])|:(?=//)|(?<=www)\.")
_LINE_START = re.compile(r"^(?:(\d{1,9})(?=[.)](?:\s|$))|(?=[#=])|(?=[-+](?:[\s-]|$)))")
_JSON = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def plain(text: object) -> str:
    """`text` on one line without control, bidirectional-override or private characters; safe to print on a terminal.

    Kept are letters, marks, numbers, punctuation, symbols and the two joiners that scripts and emoji need.
    Very long text is cut at 2,000 characters, visibly.
    """
    raw = str(text)
    cut = raw if len(raw) <= LONGEST else raw[:LONGEST] + "…"
    if cut.isascii() and cut.isprintable():  # most of it, and a report has thousands
        return cut.strip()
    return "".join(_character(c) for c in cut).strip()


def _character(character: str) -> str:
    if character in "\t\n\r\v\f\u0085\u2028\u2029":
        return " "
    if unicodedata.category(character)[0] == "C" and character not in _JOINERS:
        return "�" if character >= "\ud800" else ""
    return character


def markdown(text: object) -> str:
    """`plain` text that means itself inside a Markdown paragraph or table cell: no markup, link or HTML comes of it."""
    safe = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    safe = _MARKDOWN.sub(lambda hit: "\\" + hit.group(), safe)
    return _LINE_START.sub(lambda hit: (hit.group(1) or "") + "\\", safe)


def sarif_text(text: object) -> str:
    """`plain` text that means itself as a SARIF message: no placeholder, and no link, whatever brackets it has."""
    return plain(text).replace("{", "(").replace("}", ")").replace("](", "] (")


def json_in_html(value: object) -> str:
    """JSON that cannot end or open an element of the page it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda hit: _JSON[hit.group()], text)


def encodable(text: str, encoding: str) -> str:
    """`text` in characters that `encoding` has: minus signs, dashes and verdict marks become ASCII, the rest `?`."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII)
    return text.encode(encoding, errors="replace").decode(encoding)


_ASCII = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "…": "...", "✓": "+", "✗": "x", "◐": "~", "·": "-", "’": "'", "“": '"', "”": '"', " ": " "}
)
