"""`python -m orchqueue` is the same as the command `orchqueue`."""

import sys

from orchqueue.cli.main import main

sys.exit(main())
