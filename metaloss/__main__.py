"""``python -m metaloss``: the command line."""

import sys

if __name__ == "__main__":
    from metaloss.cli.main import main

    sys.exit(main())
