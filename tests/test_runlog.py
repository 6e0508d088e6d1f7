"""run.log takes what libraries say, and a full disk ends in no traceback."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from audit.runlog import LogFile, logging_to

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_loses_lines_in_silence(capsys):
    with logging_to(FULL):
        logging.getLogger("audit").info("lost")
    assert capsys.readouterr().err == ""


def test_a_record_that_cannot_be_formatted_is_still_told(tmp_path, capsys):
    handler = LogFile(tmp_path / "run.log")  # pytest's own handlers would raise
    handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, "%d", ("no number",), None))
    handler.close()
    assert "Logging error" in capsys.readouterr().err


def test_warnings_go_to_the_log_while_it_is_open_and_nowhere_else(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = warnings.showwarning
        with logging_to(tmp_path / "run.log"):
            warnings.warn("a library\nspeaks", UserWarning, stacklevel=1)
        assert warnings.showwarning is shown
    (line,) = (tmp_path / "run.log").read_text().splitlines()
    assert "WARNING UserWarning: a library speaks" in line
    assert capsys.readouterr().err == ""
