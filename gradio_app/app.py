"""The Space: the page of `cifar100 app`, on the model beside this file, served where the Space says."""

from pathlib import Path

from cifar100.page.app import serve
from cifar100.see import open_model

MODEL = Path(__file__).with_name("model.onnx")

if __name__ == "__main__":
    serve(open_model(MODEL if MODEL.exists() else "pretrained"), host=None)
