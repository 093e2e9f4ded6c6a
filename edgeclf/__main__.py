"""``python -m edgeclf``."""

import atexit
import os
import sys

from edgeclf.cli import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        from edgeclf_device.cli import INTERRUPTED

        if end.code != INTERRUPTED:
            raise
        # Where Ctrl-C met Python code that C code ran, as when TensorFlow is imported, `python -m` ends itself with
        # SIGINT, whatever the exit code says: CPython keeps a mark of it that nothing clears.
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit would leave them out, and there is no other name for them
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
