"""The control plane starts without torch: only the training thread loads it."""

import subprocess
import sys


def test_supervisor_and_control_plane_import_without_torch() -> None:
    """In a fresh process neither torch nor numpy is loaded by them."""
    code = (
        "import sys, esperd.weatherlight.serve, esperd.control.server, esperd.cli.main;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_command_line_imports_neither_grpc_nor_torch() -> None:
    """`esperd --help` answers at once: what a verb needs is imported when it runs."""
    code = (
        "import sys, esperd.cli.main;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'grpc', 'rich', 'sklearn')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
