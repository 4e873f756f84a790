"""Text from outside: what steers a terminal or cannot be seen stands there as an escape, the rest as it is."""

import unicodedata

import pytest

from core.visible import one_line, visible

KEPT = (
    "plain, tab\tand\nline; ä é 日本\u3000語 👩\u200d🚀 ❤\ufe0f 1\ufe0f\u20e3 می\u200cخواهم क्\u200dष \N{NO-BREAK SPACE}"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;cm0gLXJm\x07", r"\x1b]52;c;cm0gLXJm\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("\x00\x08\x7f", r"\x00\x08\x7f"),
        ("good\rbad", r"good\rbad"),
        ("one\r\ntwo", "one\ntwo"),
        ("exe\u202egnp.", r"exe\u202egnp."),
        ("a\u2066b\u200fc\u061c", r"a\u2066b\u200fc\u061c"),
        ("zero\u200bwidth\u2060\ufeff", r"zero\u200bwidth\u2060\ufeff"),
        ("joined\u200din\u200clatin", r"joined\u200din\u200clatin"),
        ("\U000e0041\ufe0f\u3164", r"\U000e0041\ufe0f\u3164"),
        ("\u2028\u2029\x85\x0b", r"\u2028\u2029\x85\x0b"),
        ("half \ud83d", r"half \ud83d"),
        (KEPT, KEPT),
        (r"C:\n \x1b", r"C:\n \x1b"),
    ],
)
def test_what_steers_or_hides_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_no_control_and_no_format_character_of_unicode_passes() -> None:
    escaped = [
        chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]
    assert len(escaped) > 2000
    for character in set(escaped) - set("\n\t"):
        assert visible(f"a{character}b").isprintable()


def test_one_line_is_one_line() -> None:
    assert one_line("\n a\t\tb \r\n\n c\x85d  e\u2028\r") == r"a b c\x85d  e\u2028\r"
