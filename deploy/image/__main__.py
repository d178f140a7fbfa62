"""`python -m deploy.image`."""

import sys

from deploy.image.cli import main

sys.exit(main())
