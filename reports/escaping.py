"""Text from outside, made harmless for the format that it goes into. Torch-free."""

from __future__ import annotations

import re

FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # no XML 1.0 document may hold these
SPECIAL = re.compile(r"[&<>\[\]`*_|~\\@#!]")


def plain(text: object) -> str:
    """One line that is the same text in GitHub's markdown and in HTML inside it, and never markup, a link or a mention.

    Character references cannot stand for markup (CommonMark 0.31, Sec. 2.5), in table cells neither.
    """
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))


def xml_text(text: object) -> str:
    """Text without the characters that no XML document can hold; markup still has to be escaped."""
    return FORBIDDEN.sub("\ufffd", str(text))
