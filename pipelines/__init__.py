"""The Kubeflow pipelines and `elcrec-pipeline`, which compiles and runs them."""
