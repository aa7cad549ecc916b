"""Local clouds: AWS, GCP and Kubernetes on this machine, where jobs really run."""
