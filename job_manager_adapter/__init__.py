"""The manager: hands an experiment's jobs to pilots and takes their results back."""
