"""Kubeflow components: one thin adapter a stage, run on the project's image.

A component's module imports the standard library and kfp alone; kfp ships the source of its function,
which imports what it needs from the image.
"""
