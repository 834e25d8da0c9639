"""The web app: `cifar100 app`, and the Space in gradio_app/.

Only `app`, `server` and `request_validation` import gradio.
"""
