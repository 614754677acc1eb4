"""The default image of components, if the pipeline is not compiled for another one."""

IMAGE = "elcrec:0.1.0"
