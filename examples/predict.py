"""Classify images with the bundled weights or with a checkpoint.

python examples/predict.py photo.jpg holidays/*.jpg
python examples/predict.py photo.jpg --checkpoint logs/cifar100/best_model.pth
"""

from __future__ import annotations

import argparse

from cifar100 import load_predictor

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--checkpoint", default="pretrained")
    args = parser.parse_args()
    predictor = load_predictor(args.checkpoint)
    for path, predictions in zip(args.images, predictor.predict_stream(args.images, top_k=3), strict=True):
        print(path, *(f"{found.class_name} {found.probability:.1%}" for found in predictions), sep="  ")
