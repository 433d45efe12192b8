"""limn: generate, edit, restore, swap, animate and verify portraits with the GAN systems of the literature.

The verbs of the command line are functions of the same names here, imported when they are first used: `limn.generate`, `limn.edit` and so
on; `VERBS` lists them.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

VERBS: dict[str, str] = {
    "generate": "limn.tasks.generate:generate",
    "invert": "limn.tasks.invert:invert",
    "edit": "limn.tasks.edit:edit",
    "translate": "limn.tasks.translate:translate",
    "restore": "limn.tasks.restore:restore",
    "inpaint": "limn.tasks.inpaint:inpaint",
    "swap": "limn.tasks.swap:swap",
    "animate": "limn.tasks.animate:animate",
    "blend": "limn.tasks.blend:blend",
    "parse": "limn.tasks.parse:parse",
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
