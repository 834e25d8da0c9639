"""python -m cifar100 is cifar100."""

import sys

from cifar100.cli import main

sys.exit(main())
