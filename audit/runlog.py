"""run.log: what the audit and its libraries say while attacks run. A log that cannot be written ends no audit."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from audit.errors import CannotWrite

log = logging.getLogger("audit")


class LogFile(logging.FileHandler):
    """A file that loses lines when the disk is full, in silence: the next unit's file says so in one sentence."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # what is still buffered does not fit either
            super().close()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append the audit's log records and all warnings to a file while the block runs. Raises CannotWrite."""
    try:
        handler = LogFile(path)
    except OSError as error:
        raise CannotWrite(
            f"could not write {path} ({error.strerror}), expected a writable place; type --out DIRECTORY"
        ) from error
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    shown = warnings.showwarning
    warnings.showwarning = _warned
    try:
        yield
    finally:
        warnings.showwarning = shown
        log.removeHandler(handler)
        handler.close()


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    """A library's warning as a line of the log: on the terminal it would tear the table, or break --quiet."""
    log.warning("%s: %s (%s:%d)", category.__name__, " ".join(str(message).split()), filename, lineno)
