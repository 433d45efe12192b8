"""Run parity cases: does our code compute what the published implementations compute?

    python tests/parity/check.py FOLDER...

A FOLDER is a case (it holds spec.json and arrays.safetensors) or any tree of cases. One line per case: system/case, error, tolerance
and, last, `ok` or what failed. Exits 0 only if there are cases and all of them pass.

A case is matched by its system (`adapters/SYSTEM.py`, with _ for -) and the module its source names (`MODULES` there); the adapter
computes every output of the case, by name.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
if find_spec("limn") is None:
    sys.path.insert(1, str(HERE.parents[1] / "src"))

import numpy as np  # noqa: E402
import parity  # noqa: E402

Adapter = Callable[[parity.Case], Mapping[str, Any]]
ALIKE = 0.6  # how much of a module's name must agree where no adapter names it exactly


@dataclass(frozen=True)
class Result:
    """How one case came out; `fault` is empty if it passed."""

    name: str
    error: float
    tolerance: float
    fault: str

    def __str__(self) -> str:
        return f"{self.name:<48} error {self.error:.2e}  tolerance {self.tolerance:.2e}  {self.fault or 'ok'}"


def check(folder: Path) -> Result:
    """Run one case; whatever goes wrong is its fault line."""
    name, tolerance = f"{folder.parent.name}/{folder.name}", float("nan")
    try:
        case = parity.read(folder)
        name, tolerance = f"{case.spec['system']}/{case.spec['case']}", float(case.spec["tolerance"])
        ours = adapter_of(case)(case)
        error, fault = compare(ours, case.outputs, tolerance)
    except Exception as broken:
        error, fault = float("nan"), f"{type(broken).__name__}: {first_line(broken)}"
    return Result(name, error, tolerance, fault)


def compare(ours: Mapping[str, Any], theirs: Mapping[str, np.ndarray], tolerance: float) -> tuple[float, str]:
    """Return the largest error over the outputs of a case and what failed."""
    worst, faults = 0.0, []
    for name, expected in theirs.items():
        if name not in ours:
            faults.append(f"{name}: the adapter does not compute it")
            continue
        try:
            found = parity.error(as_numbers(ours[name]), as_numbers(expected))
        except ValueError as error:
            faults.append(f"{name}: {first_line(error)}")
            continue
        worst = max(worst, float("inf") if np.isnan(found) else found)  # NaN is as wrong as can be
        if not found <= tolerance:
            faults.append(f"{name}: error {found:.2e}")
    if not theirs:
        faults.append("the case has no outputs")
    return worst, "; ".join(faults[:4]) + (f"; and {len(faults) - 4} more" if len(faults) > 4 else "")


def adapter_of(case: parity.Case) -> Adapter:
    """Find what computes a case: exactly the module that its source names, else the one whose name is most like it."""
    system, module = case.spec["system"], module_of(case.spec)
    file = "adapters." + re.sub(r"[^0-9a-z]", "_", system.lower())
    try:
        modules: Mapping[str, Adapter] = importlib.import_module(file).MODULES
    except ModuleNotFoundError as error:
        if error.name not in (file, "adapters"):
            raise
        raise LookupError(f"no adapter: {file.replace('.', '/')}.py is not there") from None
    if module in modules:
        return modules[module]
    near = max(modules, key=lambda known: likeness(known, module), default="")
    if not near or likeness(near, module) < ALIKE:
        raise LookupError(f"no adapter for module {module!r}: {file.replace('.', '/')}.py has {', '.join(modules)}")
    return modules[near]


def module_of(spec: Mapping[str, Any]) -> str:
    """Return the module that a case's source names: the source is a dictionary, or its fields lie flat in the spec."""
    source = spec.get("source")
    found = source.get("module") if isinstance(source, Mapping) else spec.get("module", spec.get("source.module"))
    return str(found or "")


def likeness(known: str, module: str) -> float:
    """Return 1 for the same class or function at another path, else the share of the names that agrees."""
    if known.rpartition(".")[2] == module.rpartition(".")[2]:
        return 1.0
    return SequenceMatcher(None, known, module).ratio()


def cases(folders: list[Path]) -> Iterator[Path]:
    """Yield the case folders among and below `folders`, each once, in order."""
    seen = set()
    for folder in folders:
        for spec in [folder / "spec.json"] if (folder / "spec.json").is_file() else sorted(folder.rglob("spec.json")):
            if spec.parent.resolve() not in seen:
                seen.add(spec.parent.resolve())
                yield spec.parent


def as_numbers(array: Any) -> np.ndarray:
    """Return an array or tensor in float64, so that no difference wraps around; complex numbers stay complex."""
    array = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
    return array if array.dtype.kind == "c" else array.astype(np.float64)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def main(arguments: list[str]) -> int:
    """Check the cases of the folders named; return the exit code."""
    missing = [name for name in arguments if not Path(name).is_dir()]
    if missing or not arguments:
        print(f"not a folder: {', '.join(missing)}" if missing else (__doc__ or "").strip(), file=sys.stderr)
        return 2
    results = []
    for folder in cases([Path(name) for name in arguments]):
        results.append(check(folder))
        print(results[-1], flush=True)
    passed = sum(not result.fault for result in results)
    print(f"{passed} of {len(results)} cases pass", file=sys.stderr)
    return 0 if results and passed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
