"""`python -m limn` is the command `limn`."""

import sys

from limn.cli import main

sys.exit(main())
