"""HTML reports, learning curves, run comparison and the augmentation preview.

matplotlib and jinja2 are imported only inside the functions that use them.
"""
