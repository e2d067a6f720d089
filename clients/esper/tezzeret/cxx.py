"""The C++ compiler that torch calls for the libraries of a kernel: whether there is one at all.

Asked once, before anything slow is begun. It knows neither torch nor what is compiled.
"""

import os
import shutil

from esper.failures import Failed


def require_cxx() -> None:
    """Raise Failed, with what to do, unless g++, or what CXX names, can be started."""
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise Failed(f"there is no C++ compiler {name}. Install one, or name yours with CXX.")
