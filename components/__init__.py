"""Kubeflow components: one thin adapter per stage, run in the project's image.

A component's module imports only the standard library and kfp. kfp ships the source of its function, which imports
everything else from the image.
"""
