"""One hybrid pipeline for AWS, GCP, Kubernetes and a laptop."""

__version__ = "0.1.0"
