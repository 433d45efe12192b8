"""A pickle machine that can only build plain values and tensors: it imports nothing, and calls nothing but the functions named here.

It is the stack machine of Python's `pickle` documentation, driven by `pickletools.genops` as a tokeniser, with an allow-list of
globals. Sizes that a file declares are checked against the bytes that are there; an unknown global ends the reading with its name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from torch import Tensor

from limn.errors import WeightsError

OPCODES = 20_000_000  # per pickle: a checkpoint of 10,000 tensors takes about 400,000
MODULES = 100_000  # in one network
DEPTH = 64  # modules within modules


@dataclass(frozen=True)
class Global:
    """A name in a pickle that is known: what its call builds (None: it can be held but not called)."""

    name: str
    make: Callable[..., Any] | None = None


@dataclass
class Record:
    """An object of a published class, kept as plain data: its class name and its state; no code of it is run or kept."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state dict of the module that this was: parameters, persistent buffers, then those of its children."""
        found: dict[str, Tensor] = {}
        waiting: list[tuple[str, Record]] = [("", self)]
        for count in range(MODULES + 1):
            if not waiting:
                return found
            prefix, module = waiting.pop()
            if count == MODULES or prefix.count(".") > DEPTH:
                break
            found |= {f"{prefix}{name}": value for name, value in module._own().items() if isinstance(value, Tensor)}
            children = [(f"{prefix}{name}.", child) for name, child in module._mapping("_modules").items() if isinstance(child, Record)]
            waiting += reversed(children)
        raise WeightsError(f"holds more than {MODULES:,} modules, or nests them more than {DEPTH} deep: it is damaged or made to harm")

    def facts(self) -> dict[str, Any]:
        """Return the class name and the constructor's arguments, where they were kept."""
        kept = {"init_kwargs": self.state.get("_init_kwargs"), "init_args": self.state.get("_init_args")}
        return {"class": self.kind, **{name: value for name, value in kept.items() if value}}

    def _mapping(self, name: str) -> Mapping[str, Any]:
        value = self.state.get(name)
        return value if isinstance(value, Mapping) else {}

    def _own(self) -> dict[str, Any]:
        """Parameters and persistent buffers of this module alone."""
        skipped = self.state.get("_non_persistent_buffers_set")
        kept = {name: value for name, value in self._mapping("_buffers").items() if not isinstance(skipped, set) or name not in skipped}
        return {**self._mapping("_parameters"), **kept}


class Machine:
    """Reads one pickle: `load()` returns the value that it builds."""

    def __init__(self, file: BinaryIO, allowed: Mapping[str, Global], persistent: Callable[[Any], Any] | None = None) -> None:
        self.file = file
        self.allowed = allowed  # "module.name" -> what stands for it
        self.persistent = persistent  # what a persistent id stands for: the storages of a PyTorch file
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Run the pickle to its end; WeightsError where it asks for more than plain values and tensors."""
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(self.file)):
                if count > OPCODES:
                    raise WeightsError(f"holds a pickle of more than {OPCODES} steps: it is damaged or made to harm")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
        except WeightsError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError, RuntimeError) as error:
            raise WeightsError(f"holds a damaged pickle ({_line(error)}): download or copy it again") from error
        raise WeightsError("holds a pickle that ends early: download or copy it again")

    def _step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in STEPS:
            STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise WeightsError(f"holds a pickle with the instruction {name}, which no weight file needs: it is refused")

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def above_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def drop(self, to_mark: bool = False) -> None:
        if to_mark or (self.marks and self.marks[-1] == len(self.stack)):
            self.above_mark()
        else:
            self.stack.pop()

    def take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("stack underflow")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def put(self, index: int | None = None) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def named(self, module: Any, name: Any) -> None:
        """Push what stands for a global, or refuse it by name."""
        full = f"{module}.{name}"
        if full not in self.allowed:
            raise WeightsError(
                f"asks for {full[:120]!r}, which is neither a tensor nor a plain value: it is refused and nothing in it was run; "
                "use a file that holds a state dict"
            )
        self.stack.append(self.allowed[full])

    def reduce(self) -> None:
        function, arguments = self.take(2)
        self.stack.append(_call(function, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state.update(_dict_of(state))
        elif isinstance(target, dict):
            return_state(target, state)
        elif hasattr(target, "pickled_state"):
            target.pickled_state(state)
        elif not isinstance(target, Tensor):
            raise ValueError(f"state for a {type(target).__name__}")

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError(f"items for a {type(target).__name__}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError(f"pairs for a {type(target).__name__}")
        target.update(zip(items[::2], items[1::2], strict=True))

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise ValueError(f"members for a {type(target).__name__}")
        target.update(items)

    def persist(self, identity: Any) -> None:
        if self.persistent is None:
            raise WeightsError("refers to data outside of itself: it is not a whole file")
        self.stack.append(self.persistent(identity))


def return_state(target: dict[Any, Any], state: Any) -> None:
    """Take the attributes of what was a namespace as entries; those of an OrderedDict (its `_metadata`) are dropped."""
    if isinstance(target, Namespace):
        target.update(_dict_of(state))


class Namespace(dict[str, Any]):
    """What was an argparse.Namespace: its attributes as entries."""


def _dict_of(state: Any) -> dict[str, Any]:
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)  # (dict, slots) for classes with slots
    if not all(part is None or isinstance(part, dict) for part in parts):
        raise ValueError(f"state of type {type(state).__name__}")
    return {str(name): value for part in parts if part for name, value in part.items()}


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Global) or function.make is None or not isinstance(arguments, tuple):
        name = function.name if isinstance(function, Global) else type(function).__name__
        raise WeightsError(f"calls {name!r}, which cannot be called: it is refused, and nothing in it was run")
    return function.make(*arguments)


def _instance(machine: Machine, module_and_name: str) -> None:
    module, _, name = module_and_name.partition(" ")
    arguments = tuple(machine.above_mark())
    machine.named(module, name)
    machine.stack.append(_call(machine.stack.pop(), arguments))


def _object(machine: Machine) -> None:
    function, *arguments = machine.above_mark()
    machine.stack.append(_call(function, tuple(arguments)))


def _new_with_keywords(machine: Machine) -> None:
    function, arguments, keywords = machine.take(3)
    if keywords:
        raise ValueError("keywords for a plain value")
    machine.stack.append(_call(function, arguments))


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("odd number of items for a dict")
    return dict(zip(items[::2], items[1::2], strict=True))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.drop(),
    "POP_MARK": lambda m, _: m.drop(to_mark=True),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.above_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.take(3))),
    "LIST": lambda m, _: m.stack.append(m.above_mark()),
    "DICT": lambda m, _: m.stack.append(_pairs(m.above_mark())),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(m.above_mark())),
    "APPEND": lambda m, _: m.extend(m.take(1)),
    "APPENDS": lambda m, _: m.extend(m.above_mark()),
    "SETITEM": lambda m, _: m.set_items(m.take(2)),
    "SETITEMS": lambda m, _: m.set_items(m.above_mark()),
    "ADDITEMS": lambda m, _: m.add(m.above_mark()),
    "PUT": lambda m, index: m.put(index),
    "BINPUT": lambda m, index: m.put(index),
    "LONG_BINPUT": lambda m, index: m.put(index),
    "MEMOIZE": lambda m, _: m.put(),
    "GET": lambda m, index: m.stack.append(m.memo[int(index)]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, name: m.named(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.named(*m.take(2)),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.reduce(),
    "NEWOBJ_EX": lambda m, _: _new_with_keywords(m),
    "INST": _instance,
    "OBJ": lambda m, _: _object(m),
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, identity: m.persist(identity),
    "BINPERSID": lambda m, _: m.persist(m.stack.pop()),
}
