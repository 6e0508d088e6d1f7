"""Is a model random? One answer from everything that was measured of it, for the plan, the diagnoses and the engine.

Torch-free: it reads the profile of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RANDOM = 1e-4  # AutoAttack's bar for the change of normalised logits between passes
MEASURED = ("max_draw_difference", "repeats_difference", "seed_difference")


def drift(profile: Mapping[str, Any]) -> float:
    """The largest change of normalised logits between passes that was seen: over all images in a few passes, over a few
    images in many, and between seeds. A model that draws once for a whole pass hides from few passes.
    """
    return max(float(profile.get(name) or 0.0) for name in MEASURED)


def remembers(profile: Mapping[str, Any]) -> bool:
    """Do its answers change because it remembers its queries, and not by chance?"""
    return bool(profile.get("stateful")) and not profile.get("random_by_seed")


def random_drift(profile: Mapping[str, Any]) -> float:
    """`drift`, or 0 where memory explains it."""
    return 0.0 if remembers(profile) else drift(profile)


def random(profile: Mapping[str, Any]) -> bool:
    """Does it answer one question in different ways?"""
    return random_drift(profile) > RANDOM


def deterministic(profile: Mapping[str, Any], traits: frozenset[str]) -> bool:
    """May a repeated question be answered from memory? Only if nothing random or stateful is declared or seen."""
    quiet = drift(profile) == 0 and not profile.get("stateful", False)
    return quiet and not traits & {"stochastic", "stateful"}
