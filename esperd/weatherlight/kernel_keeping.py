"""What a daemon keeps kernels with: the library, whose word counts there, and the validator with its key.

Main thread at the start; blocking work on files of the run directory. Nothing here opens a kernel.
"""

import secrets
import time

from structlog.stdlib import BoundLogger

from esperd.config.settings import KernelSettings
from esperd.control.kernel_desk import limits_of
from esperd.control.kernel_parts import KernelKeeping
from esperd.leyline.keyring import KeyRing
from esperd.leyline.verify import Verifier
from esperd.urabrask.validator import Validator
from esperd.urza.library import Library
from esperd.urza.store import open_store
from esperd.urza.trust import KernelTrust
from esperd.urza.validator_key import validator_key
from esperd.weatherlight.run_directory import RunDirectory


def make_kernel_keeping(
    settings: KernelSettings, directory: RunDirectory, verifier: Verifier, log: BoundLogger
) -> KernelKeeping | None:
    """Make it, with the keys that the verifier has at each moment; None where kernels are switched off.

    Raises:
        EsperdError: KERNEL_STORE_UNAVAILABLE or KEY_FILE_INVALID.
    """
    if not settings.enabled:
        return None
    key = validator_key(directory.validator_key_path, secrets.token_bytes)
    trust = KernelTrust(lambda: verifier.keyring or KeyRing([]), {key.key_id: key.secret}, time.time)
    folder = directory.kernels_path
    store = open_store(settings.store, folder / "library")
    library = Library(folder, store, trust, limits_of(settings), time.time)
    return KernelKeeping(library, trust, Validator(time.time, log), key, folder)
