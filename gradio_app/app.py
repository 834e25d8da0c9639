"""The Space: the page of `cifar100 app`, on the model beside this file, served where the Space says."""

from pathlib import Path

from cifar100.prediction.cam import open_model
from cifar100.web.app import serve

MODEL = Path(__file__).with_name("model.onnx")

if __name__ == "__main__":
    serve(open_model(MODEL if MODEL.exists() else "pretrained"), host=None)
