"""The supervisor's program: `python -I -S boot.py ...`, run by path.

It needs this folder and the standard library, and nothing of what the package imports for its users. So it takes a
third of the time to start, and works however the package was found: installed, editable, or by a changed sys.path.
"""

import sys
from pathlib import Path
from types import ModuleType


def _bare_package() -> ModuleType:
    """`banshee_memory` without its own `__init__`."""
    package = ModuleType("banshee_memory")
    package.__path__ = [str(Path(__file__).absolute().parent.parent)]
    return package


if __name__ == "__main__":
    sys.modules["banshee_memory"] = _bare_package()

    from banshee_memory.embedded.supervisor import main

    main()
