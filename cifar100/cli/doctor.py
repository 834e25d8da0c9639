"""cifar100 doctor"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field

from cifar100.cli.options import configured
from cifar100.config import DeviceName, PrecisionName
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check training on this machine; estimate the time of each recipe.

    It takes under a minute and needs no dataset.

    Exit code 1 if the device computes wrong gradients.
    """

    device: DeviceName = field(default_factory=configured("run", "device"))
    """The device to examine; "auto" is the one that training would use."""

    precision: PrecisionName = field(default_factory=configured("run", "precision"))
    """Arithmetic of the network; "auto" is what training would use."""

    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        import json

        from cifar100.compute.device import select_device
        from cifar100.training.doctor import diagnose, report

        compute = select_device(self.device, self.precision)
        diagnosis = diagnose(compute, lambda text: print(f"{text} …", file=sys.stderr, flush=True))
        emit(json.dumps(asdict(diagnosis), indent=2) if self.json else report(diagnosis), wrapped=not self.json)
        return 0 if diagnosis.gradient_check.passed else 1
