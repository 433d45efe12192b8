"""limn: generate, invert, edit, blend and verify portraits with the GAN systems of the literature.

The verbs of the command line are functions of the same names here, imported when they are first used:
`limn.generate`, `limn.invert`, `limn.edit`, `limn.blend`, `limn.verify`, `limn.train`, `limn.evaluate`, `limn.doctor`, `limn.demo`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

VERBS: dict[str, str] = {
    "generate": "limn.tasks.generate:generate",
    "invert": "limn.tasks.invert:invert",
    "edit": "limn.tasks.edit:edit",
    "inpaint": "limn.tasks.inpaint:inpaint",
    "blend": "limn.tasks.blend:blend",
    "swap": "limn.tasks.swap:swap",
    "restore": "limn.tasks.restore:restore",
    "parse": "limn.tasks.parse:parse",
    "translate": "limn.tasks.translate:translate",
    "animate": "limn.tasks.animate:animate",
    "train": "limn.tasks.train:train",
    "evaluate": "limn.tasks.evaluate:evaluate",
    "verify": "limn.tasks.verify:verify",
    "doctor": "limn.tasks.doctor:doctor",
    "demo": "limn.tasks.demo:demo",
}


def __getattr__(name: str) -> Any:
    if name not in VERBS:
        raise AttributeError(f"module 'limn' has no attribute {name!r}")
    module, function = VERBS[name].split(":")
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return [*globals(), *VERBS]
