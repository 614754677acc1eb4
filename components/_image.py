"""The image that components run on unless the pipeline is compiled for another."""

IMAGE = "elcrec:0.1.0"
