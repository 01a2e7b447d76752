"""`python -m modelforge` is `modelforge`."""

import sys

from modelforge.cli import main

sys.exit(main())
