"""Runs first in the one-file program: has the kernel kill it when the loader that unpacked it dies.

Knows Linux and no relay. SIGTERM is passed on by the loader; SIGKILL cannot be.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_loader = os.getppid()
if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0 and os.getppid() != _loader:
    os._exit(1)  # it died before the kernel knew
