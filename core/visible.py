"""Text from outside, made fit to be read: what a terminal would obey and what nobody can see stands there as an escape."""

from __future__ import annotations

import regex

# Controls, invisible format characters (bidi among them), lone surrogates, and whatever else Unicode has shown as nothing.
_HIDDEN = r"\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}"
# What emoji and scripts that join their letters are written with is no trick there: 👩‍🚀, ❤️, می‌خواهم.
_JOINED = r"[\p{L}\p{M}\p{Emoji}\uFE0F--\p{Latin}\p{ASCII}]"
_TO_ESCAPE = regex.compile(
    rf"(?V1)[[{_HIDDEN}]--[\n\t]](?<!\p{{Emoji}}[\uFE0E\uFE0F])(?!(?<={_JOINED}[\u200C\u200D])(?={_JOINED}))"
)
_BREAK = regex.compile(r"[ \t]*[\n\t]\s*")
_SHORT = {"\r": r"\r"}


def visible(text: str) -> str:
    r"""Return ``text`` with escapes (``\x1b``, ``\u202e``) for what is invisible or steers a terminal; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _TO_ESCAPE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return `visible` text on one line: a space for each line break and each tab."""
    return _BREAK.sub(" ", visible(text)).strip()


def _escaped(found: regex.Match[str]) -> str:
    character = found[0]
    return _SHORT.get(character) or ascii(character)[1:-1]
