"""cifar100 app"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cifar100.config import DeviceName
from cifar100.support.errors import UserError


@dataclass(frozen=True, kw_only=True)
class App:
    """Serve the web app, on localhost by default."""

    checkpoint: Path = Path("pretrained")
    """Model to serve; "pretrained" is the bundled one."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 accepts connections from other machines."""

    port: int = 7860
    """Port to listen on."""

    open: bool = False
    """Open the web app in a browser."""

    device: DeviceName = "auto"
    """Device to run on."""

    def run(self) -> int:
        if not 1 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; ports are from 1 to 65535.")
        try:
            from cifar100.web.app import serve
        except ModuleNotFoundError as error:
            raise UserError(f"The page needs {error.name}: pip install 'cifar100[app]'.") from None
        from cifar100.prediction.cam import open_model

        serve(open_model(self.checkpoint, device=self.device), host=self.host, port=self.port, open_browser=self.open)
        return 0
