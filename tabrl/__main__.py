"""`python -m tabrl` is the command line."""

import sys

from tabrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
