"""cifar100 app"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cifar100.cli.options import ModelOptions
from cifar100.images.fit import DEFAULT_FIT, Fit
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit_error


@dataclass(frozen=True, kw_only=True)
class App(ModelOptions):
    """Serve the web app, on localhost by default."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 accepts connections from other machines."""

    port: int = 7860
    """Port to listen on."""

    open: bool = False
    """Open the web app in a browser."""

    fit: Fit = DEFAULT_FIT
    """How images become square: the center, padded with gray, or stretched."""

    views: Literal[1, 2] = 1
    """2: the mean over the image and its horizontal flip, in twice the time."""

    def run(self) -> int:
        if not 1 <= self.port <= 65535:
            raise UserError("app.port", f"--port is {self.port}; ports are from 1 to 65535.")
        emit_error("starting the web app (gradio takes some seconds to load)")
        try:
            from cifar100.web.server import serve
        except ModuleNotFoundError as error:
            raise UserError("app.library", f"The web app needs {error.name}: pip install 'cifar100[app]'.") from None
        from cifar100.prediction.output import model_lines

        predictor = self.load_predictor(fit=self.fit, views=self.views)
        emit_error(f"model: {', '.join(model_lines(predictor))}")
        serve(predictor, host=self.host, port=self.port, open_browser=self.open)
        return 0
