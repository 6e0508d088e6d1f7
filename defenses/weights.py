"""Checkpoints: read safely, written whole, with a manifest that says how they came to be.

A checkpoint is a safetensors file whose metadata holds the manifest; the same manifest lies beside it as JSON for
people. Published `.pt` state dicts load too, with `weights_only`; pickles of whole modules are refused.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import pickle
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from audit.errors import BadWeights
from audit.ledger import write_atomically, write_json
from defenses.networks import build

MANIFEST_KEY = "manifest"
ASSUMED = "architecture_assumed"  # set in the manifest of a bare file, whose architecture nobody recorded


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint file and its manifest (empty for a file that has none)."""

    path: Path
    sha256: str
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.manifest.get("architecture", {})
        return found

    @property
    def measured(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.manifest.get("measured", {})
        return found

    @property
    def inference(self) -> Mapping[str, Any]:
        """What the defense does at test time, for example `{"purify": "fgsm", "xi": 0.0314}`; empty for a bare network."""
        found: Mapping[str, Any] = self.manifest.get("inference", {})
        return found

    @property
    def meant_for_eps(self) -> float | None:
        """The radius that the defense was made for, in pixel units; None where nothing says so.

        A purifier that moves by xi is made for attacks of that radius (TPAP takes xi = eps); else the radius counts that
        the manifest names, as it does where another test-time part was typed, or that the network was trained against.
        """
        if "xi" in self.inference:
            return float(self.inference["xi"])
        recipe = self.manifest.get("recipe")
        trained = recipe.get("eps") if isinstance(recipe, Mapping) else None
        found = self.manifest.get("meant_for_eps") or self.measured.get("trained_for_eps") or trained
        return None if found is None else float(found)

    @property
    def dataset(self) -> str | None:
        return self.manifest.get("dataset")

    @property
    def defense(self) -> str | None:
        return self.manifest.get("defense")


def inspect(path: Path, fallback: Mapping[str, Any] | None = None) -> StoredCheckpoint:
    """Read what a checkpoint says of itself, without building anything.

    fallback: the manifest to assume for a file without one. Raises BadWeights when it is missing, empty, a web page
    or torn.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadWeights(
            f"the checkpoint {path} cannot be read ({error.strerror}); type --weights FILE, or train one with `audit train`"
        ) from error
    if _is_web_page(content[:512]):
        raise BadWeights(f"{path} is a web page, not a checkpoint; the download link has expired, fetch the file anew")
    manifest = dict(fallback or {})
    if path.suffix == ".safetensors":
        manifest |= _manifest(path)
    return StoredCheckpoint(path, hashlib.sha256(content).hexdigest(), manifest)


def _is_web_page(start: bytes) -> bool:
    """Markup, with or without a byte order mark, blanks or a comment before it."""
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = start.decode("utf-16" if utf16 else "utf-8-sig", "ignore").lstrip("\ufeff \t\r\n")
    return text.startswith("<") and "\0" not in text  # a safetensors header of 60 bytes starts with "<" and zeros


def _manifest(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(MANIFEST_KEY, "{}")
        found: dict[str, Any] = json.loads(text)
    except (SafetensorError, ValueError, OSError) as error:
        raise BadWeights(f"{path} is truncated or not a safetensors file ({error}); fetch or train it anew") from error
    parts: dict[str, Any] = {"manifest": found}
    if isinstance(found, dict):
        parts |= {part: found.get(part, {}) for part in ("architecture", "measured", "inference")}
    for part, value in parts.items():
        if not isinstance(value, dict):
            raise BadWeights(
                f"the {part} of {path} is {type(value).__name__}, expected a JSON object; train or fetch it anew"
            )
    return found


def harmless() -> AbstractContextManager[None]:
    """While this holds, torch's reader of weights alone also takes what training scripts store beside them: numbers and
    arrays of numpy, and argparse's options. Building those runs no code of the file.
    """
    scalar, array = (cast(Callable[..., Any], thing.__reduce__()[0]) for thing in (np.float64(), np.zeros(0)))
    numbers = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "u8", "?")]
    old = [(scalar, "numpy.core.multiarray.scalar"), (array, "numpy.core.multiarray._reconstruct")]  # before numpy 2
    return torch.serialization.safe_globals([scalar, array, *old, np.dtype, np.ndarray, *numbers, Namespace])


def read_safely(path: Path) -> Any:
    """What a checkpoint holds, read without running code.

    Tensors, plain Python and what `harmless` names. Raises BadWeights for a torn file or a pickle of anything else.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        with harmless(), warnings.catch_warnings():  # torch warns of what it is about to raise
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file makes torch's unpickler raise nearly anything
        raise _unreadable(path, error) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint. Raises BadWeights for a torn file or a pickle that holds more than tensors."""
    state = read_safely(path)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise BadWeights(
            f"{path} holds {type(state).__name__}, expected a state dict of tensors; save model.state_dict()"
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def _unreadable(path: Path, error: Exception) -> BadWeights:
    """Only a file that starts as a pickle, or as torch's archive of one, is said to hold code."""
    with path.open("rb") as file:
        pickled = file.read(4).startswith((b"\x80", b"PK\x03\x04"))
    if isinstance(error, pickle.UnpicklingError) and pickled:
        return BadWeights(
            f"{path} is a pickle that would run code when loaded, expected a state dict or .safetensors; save model.state_dict()"
        )
    detail = (str(error).splitlines() or [""])[0][:160]
    return BadWeights(
        f"{path} is truncated or not a checkpoint ({type(error).__name__}: {detail}); fetch or train it anew"
    )


def load_network(checkpoint: StoredCheckpoint) -> nn.Module:
    """The network with its weights, in evaluation mode. Raises BadWeights when they do not fit each other."""
    network = build(checkpoint.architecture)
    try:
        network.load_state_dict(read_state(checkpoint.path))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:160]
        flags = (
            ", or its network, for example --network middle_cnn --width 0.5" if checkpoint.manifest.get(ASSUMED) else ""
        )
        raise BadWeights(
            f"{checkpoint.path} does not fit architecture {dict(checkpoint.architecture)} ({detail}); "
            f"choose the --dataset and --defense it was trained for{flags}"
        ) from error
    return network.eval()


def store(path: Path, network: nn.Module, manifest: Mapping[str, Any]) -> StoredCheckpoint:
    """Write weights and manifest; the JSON beside it also names the file's sha256. Raises CannotWrite."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    content = save(tensors, metadata={MANIFEST_KEY: json.dumps(manifest, sort_keys=True)})
    write_atomically(path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    write_json(path.with_suffix(".json"), {**manifest, "sha256": sha256})
    return StoredCheckpoint(path, sha256, manifest)
