"""The command line: every command is made from a public function, its type hints and its docstring.

Positional parameters without a default, and positional-only ones, become arguments, the others options; the second part of an
`Annotated` hint is the help text.
A function is imported when its command runs: help and errors come without torch.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from limn import VERBS, __version__
from limn.errors import InputError, LimnError

Targets = Mapping[str, "str | Targets"]

COMMANDS: dict[str, Any] = VERBS | {
    "models": {
        "list": "limn.tasks.models:list_models",
        "show": "limn.tasks.models:show_model",
        "import": "limn.tasks.models:import_model",
        "export": "limn.tasks.models:export_model",
        "fetch": "limn.tasks.models:fetch_model",
    },
    "data": {
        "check": "limn.tasks.data:check",
        "align": "limn.tasks.data:align",
        "pack": "limn.tasks.data:pack",
    },
}
INTERRUPTED = 130  # the exit code of Ctrl-C, which typer gives too
GROUPS = {"models": "List, show, import, export and fetch models.", "data": "Check, align and pack the pictures of a dataset."}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _root().main(args, prog_name="limn", standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (typer.Abort, KeyboardInterrupt):
        return _failed("interrupted: nothing half-written was left", INTERRUPTED, "--debug" in args)
    except BrokenPipeError:
        return 0
    except (LimnError, OSError, MemoryError) as error:
        return _failed(_said(error), 2, "--debug" in args)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(error.format_message() + "\n")
            return 0
        return _failed(_usage(error), 2, "--debug" in args)


def _root() -> Any:
    app = typer.Typer(cls=_Lazy, name="limn", add_completion=False)
    app.callback(help=f"limn {__version__}: generate, invert, edit and blend portraits. `limn VERB --help` says how.")(_limn)
    return typer.main.get_command(app)


def _version(value: bool) -> None:
    if value:
        sys.stdout.write(f"limn {__version__}\n")
        raise typer.Exit


def _limn(version: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help="Print the version.")) -> None:
    """Hold the option that comes before every command."""


class _Lazy(TyperGroup):
    """A group whose commands are imported when they run; until then it knows their summaries."""

    def __init__(self, targets: Targets | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"no_args_is_help": True, "rich_markup_mode": None})
        self.targets = COMMANDS if targets is None else targets

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(self.targets)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        target = self.targets.get(cmd_name)
        if target is None:
            return None
        if not isinstance(target, str):
            return _Lazy(target, name=cmd_name, help=GROUPS[cmd_name])
        return TyperCommand(cmd_name, help=summary(target), rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.targets and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.targets, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.targets)}"
            raise InputError(f"there is no command {args[0]!r}: {hint}")
        name, found, rest = super().resolve_command(ctx, args)
        target = self.targets.get(name or "")
        return name, command(name or "", target) if isinstance(target, str) else found, rest


def command(name: str, target: str) -> Any:
    """Make the command of a function, given as "module:function"."""
    module, function_name = target.split(":")
    function = getattr(import_module(module), function_name)
    hints = get_type_hints(function, include_extras=True)
    readers: dict[str, Callable[[Any], Any]] = {}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        hint, text = _described(hints[parameter.name])
        kind, readers[parameter.name] = _way(hint)
        parameters.append(_parameter(parameter, kind, text))
    parameters += [_flag("json", "Print what was done as JSON."), _flag("debug", "Show the traceback of an error.")]
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    run = partial(_run, function, readers)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}  # type: ignore[attr-defined]
    run.__name__ = name  # type: ignore[attr-defined]
    app.command(name, help=inspect.getdoc(function))(run)
    return typer.main.get_command(app)


def summary(target: str) -> str:
    """Return the first line of a function's docstring without importing its module."""
    module, function = target.split(":")
    try:
        spec = find_spec(module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec and spec.origin else ast.Module([], [])
    except (ImportError, OSError):
        return ""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return (ast.get_docstring(found[0]) or "").split("\n")[0] if found else ""


def numbers(text: str) -> tuple[int, ...]:
    """Read "0-3,8" as (0, 1, 2, 3, 8)."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InputError(f"{text!r} is no list of whole numbers: write 0-15 or 1,5,9")
        found.extend(range(int(first), int(last or first) + 1))
    if not 0 < len(found) <= 10_000:
        raise InputError(f"{text!r} names {len(found)} numbers: 1 to 10,000 are expected, the smaller first")
    return tuple(found)


def in_words(found: Sequence[int]) -> str:
    """Write (0, 1, 2, 3) as "0-3", other numbers one by one: what `numbers` reads."""
    run = len(found) > 2 and tuple(found) == tuple(range(found[0], found[-1] + 1))
    return f"{found[0]}-{found[-1]}" if run else ",".join(map(str, found))


def assignments(texts: Sequence[str]) -> dict[str, float]:
    """Read ["smile=1.5", "yaw=-1"] as {"smile": 1.5, "yaw": -1.0}."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"{text!r} is no setting: write a name and a number, such as smile=1.5") from None
    return found


def number_or_word(text: str | None) -> int | str | None:
    """Read "3" as 3 and leave a word as it is."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def _way(hint: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the type by which typer reads a hint, and what makes the parameter's value of what typer read."""
    inner, optional = _without_none(hint)
    members = set(get_args(inner)) if get_origin(inner) in {Union, UnionType} else {inner}
    kind: Any = inner
    reader: Callable[[Any], Any] = _same
    if members == {int, str}:
        kind, reader = str, number_or_word
    elif Path in members:
        kind = Path
    elif get_origin(inner) is Mapping:
        return list[str], assignments
    elif inner == tuple[int, ...]:
        kind, reader = str, numbers
    elif get_origin(inner) in {Sequence, list, tuple}:
        return list[_way(get_args(inner)[0])[0]], _listed  # type: ignore[misc]
    elif inner not in {int, float, str, bool} and get_origin(inner) is not Literal:
        raise TypeError(f"the command line cannot read {hint}")
    return (kind | None if optional else kind), (partial(_unless_none, reader) if optional else reader)


def _parameter(parameter: inspect.Parameter, kind: Any, text: str) -> inspect.Parameter:
    """Return the parameter as typer wants it."""
    default = parameter.default
    required = default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    if not required and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
        hint: Any
        option = "--" + parameter.name.rstrip("_").replace("_", "-")
        hint = Annotated[kind, typer.Option(f"{option}/--no-{option[2:]}" if kind is bool else option, help=text)]  # type: ignore[valid-type, misc]
    else:
        hint = Annotated[kind, typer.Argument(help=text, metavar=parameter.name.upper())]  # type: ignore[valid-type]
    if isinstance(default, Mapping):
        default = [f"{name}={value}" for name, value in default.items()]
    elif isinstance(default, tuple):
        default = in_words(default) if kind in {str, str | None} else list(default)
    return inspect.Parameter(parameter.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _run(function: Callable[..., Any], readers: Mapping[str, Callable[[Any], Any]], json: bool, debug: bool, **values: Any) -> int:  # noqa: ARG001
    from limn.shown import as_json, show

    values = {name: readers[name](value) for name, value in values.items()}
    first = [values.pop(name) for name, it in inspect.signature(function).parameters.items() if it.kind is it.POSITIONAL_ONLY]
    result = function(*first, **values)
    if os.environ.get("RANK", "0") != "0":  # the first of several processes speaks for all
        return 0
    if json:
        sys.stdout.write(as_json(result) + "\n")
    else:
        show(result)
    return int(getattr(result, "exit_code", 0))  # of a check that found something


def _flag(name: str, text: str) -> inspect.Parameter:
    hint = Annotated[bool, typer.Option(f"--{name}", help=text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hint)


def _described(hint: Any) -> tuple[Any, str]:
    """Split `Annotated[hint, "help"]`; other hints have no help."""
    if get_origin(hint) is not Annotated:
        inner, optional = _without_none(hint)
        found, text = (inner, "") if get_origin(inner) is not Annotated else _described(inner)
        return (found | None if optional else found), text
    inner, *extras = get_args(hint)
    return inner, next((extra for extra in extras if isinstance(extra, str)), "")


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return the hint without None, and whether None was in it."""
    if get_origin(hint) not in {Union, UnionType} or type(None) not in get_args(hint):
        return hint, False
    rest = [member for member in get_args(hint) if member is not type(None)]
    return Union[tuple(rest)], True  # noqa: UP007


def _same(value: Any) -> Any:
    return value


def _listed(value: Any) -> Any:
    return tuple(value or ())


def _unless_none(reader: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else reader(value)


def _said(error: BaseException) -> str:
    """Return one line for an error: what, where, and what may mend it."""
    if isinstance(error, LimnError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "not enough memory for this: give a smaller picture or fewer at a time"
    named = getattr(error, "filename", None)
    return f"{named or 'file'}: {getattr(error, 'strerror', None) or error}: check the path, its rights and the space on the disk"


def _usage(error: Any) -> str:
    """Return one line for a command line that cannot be understood."""
    where = getattr(getattr(error, "ctx", None), "command_path", "limn")
    return f"{' '.join(error.format_message().split())} (`{where} --help` says how)"


def _failed(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"limn: {line}\n")
    return code
