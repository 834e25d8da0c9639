"""The Space: the page of `cifar100 app`, served where the Space says."""

from cifar100.page.app import serve
from cifar100.see import open_model

if __name__ == "__main__":
    serve(open_model(), host=None)
