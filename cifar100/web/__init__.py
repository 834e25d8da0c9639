"""The web page: `cifar100 app`, and the Space of gradio_app/. Only `app` knows gradio."""
