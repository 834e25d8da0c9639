"""`python -m cifar100` is `cifar100`."""

import sys

from cifar100.cli.main import main

sys.exit(main())
