"""Text from outside, made harmless for the format that it goes into. Torch-free."""

from __future__ import annotations

import re

FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # no XML 1.0 document may hold these
# An underscore inside a word is none (GitHub's markdown, Sec. 6.4); a colon or a full stop may begin a bare link.
SPECIAL = re.compile(r"[&<>\[\]`*|~\\@#!]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
APART = "\u200b"  # GitHub looks for mentions and issue numbers in what is shown; this is not seen and parts them


def plain(text: object) -> str:
    """One line that is the same text in GitHub's markdown and in HTML inside it, and never markup, a link or a mention.

    Character references cannot stand for markup (CommonMark 0.31, Sec. 2.5), in table cells neither. Whoever copies
    "@you" or "#1" copies an invisible space with it.
    """
    line = re.sub(r"([@#])(?=\w)", rf"\1{APART}", " ".join(str(text).split()))
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", line)


def xml_text(text: object) -> str:
    """Text without the characters that no XML document can hold; markup still has to be escaped."""
    return FORBIDDEN.sub("\ufffd", str(text))
