"""The Hugging Face Space: `cifar100 app` with the model in the same directory."""

from pathlib import Path

from cifar100.inference import load_predictor
from cifar100.web.server import serve

MODEL = Path(__file__).with_name("model.onnx")

if __name__ == "__main__":
    serve(load_predictor(MODEL if MODEL.exists() else "pretrained"), host=None)
