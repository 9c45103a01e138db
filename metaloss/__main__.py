"""``python -m metaloss``: the command line."""

import sys

from metaloss.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
