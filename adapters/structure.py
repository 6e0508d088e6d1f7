"""Finding, copying and replacing parts of a model without touching the model.

An adapter that changes what happens inside a model works on a *mirror* of it: new module objects around the very
same parameters and buffers. Nothing is set on the original, and no weight is stored twice.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from audit.errors import BadInput
from audit.registry import closest


def reachable(model: nn.Module) -> tuple[list[nn.Module], list[Tensor]]:
    """Every module and tensor that `model` holds, registered or not.

    Attributes count, and what lies in tuples, lists, sets and mappings: a purifier that needs the network's gradient
    keeps it in a tuple, so that its weights are not listed twice. Other objects and closures are not searched.
    """
    modules, tensors, seen, todo = [], [], set[int](), [model]
    while todo:
        thing: object = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            tensors.append(thing)
        elif isinstance(thing, nn.Module):
            modules.append(thing)
            todo.extend(vars(thing).values())
        elif isinstance(thing, Mapping):
            todo.extend(thing.values())
        elif isinstance(thing, list | tuple | set | frozenset):
            todo.extend(thing)
    return modules, tensors


def mirror(model: nn.Module) -> nn.Module:
    """A copy of `model` with module objects of its own around the same tensors (parameters, buffers, others).

    A buffer that the model changes in place in its forward pass changes in both, as it does in any forward pass.
    """
    _, tensors = reachable(model)
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def find(model: nn.Module, name: str) -> str:
    """The full dotted name of submodule `name`, also where adapters lie around the defense.

    Adapters keep what they wrap as `model`, so "purifier" is found as "model.purifier" inside one of them.
    Raises BadInput, with the nearest name, when there is none.
    """
    known = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    prefix = ""
    while name and prefix + name not in known and prefix + "model" in known:
        prefix += "model."
    if prefix + name not in known:
        top = ", ".join(child for child, _ in model.named_children()) or "none"
        hint = closest(name, known) if known else ""
        raise BadInput(f"the model has no submodule {name!r} (its own are: {top}): {hint}".rstrip(": "))
    return prefix + name


def replace(model: nn.Module, name: str, part: nn.Module) -> nn.Module:
    """`model` with `part` at the dotted `name`; only the modules on the way there are new, `model` is unchanged.

    A second reference to a module on the way (a purifier's own hold on the network) still leads to the old part: a
    purifier that differentiates the network must keep computing what it computes in the defense.
    """
    head, _, rest = name.partition(".")
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin._modules[head] = replace(model.get_submodule(head), rest, part) if rest else part
    return twin
