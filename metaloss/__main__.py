"""``python -m metaloss``: the command line."""

import signal
import sys

if __name__ == "__main__":
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        # Ray's workers block Ctrl-C's signal, and so would a run that one of them begins.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    from metaloss.cli.main import main

    sys.exit(main())
