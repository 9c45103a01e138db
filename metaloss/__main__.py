"""``python -m metaloss``: the command line."""

import signal
import sys

if __name__ == "__main__":
    from metaloss.cli.main import main

    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        # Ray's workers block Ctrl-C's signal, and so would a run that one of them begins; a run
        # that is forked may have been sent it already.
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        except KeyboardInterrupt:
            sys.exit(130)

    sys.exit(main())
