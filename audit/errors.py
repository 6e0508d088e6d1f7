"""Everything the tool refuses, as one tree. The command line prints the sentence and exits with the code.

    AuditError (2)
    ├── BadInput            a value, an image file or a flag that cannot be used
    │   ├── UnknownName     a name that no registry holds, with the nearest one that does
    │   ├── BadData         images or labels that are not what a data set must be
    │   ├── BadWeights      a checkpoint that is missing, torn, unsafe or of another architecture
    │   └── BadModel        a model that cannot be judged: training mode, NaN logits, wrong shape
    ├── PlanMismatch        a run directory that belongs to another plan
    ├── NotComparable       a run and a baseline that measured different things
    ├── MissingDependency   an optional library that is not installed
    ├── Unsupported         an attack was asked for something that it does not do
    └── CannotWrite         the disk is full, read-only, or not ours

Each message is one sentence that says what was got, what was expected and what to type next.
"""

from __future__ import annotations


class AuditError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 2


class BadInput(AuditError):
    """A value that cannot be used as given."""


class UnknownName(BadInput):
    """A name that no registry holds."""


class BadData(BadInput):
    """Images or labels that are not in [0,1], not finite, of unequal length or out of range."""


class BadWeights(BadInput):
    """A checkpoint that is missing, truncated, a pickle, a web page, or of another architecture."""


class BadModel(BadInput):
    """A model that cannot be judged as it stands."""


class PlanMismatch(AuditError):
    """A run directory holds another plan than the one asked for."""


class NotComparable(AuditError):
    """A run and a baseline differ in what was measured, so no drop between them means anything."""


class MissingDependency(AuditError):
    """An optional library is needed and does not import."""


class Unsupported(AuditError):
    """An attack does not support the norm, the number of classes or the option that it was given."""


class CannotWrite(AuditError):
    """Results could not be stored."""
