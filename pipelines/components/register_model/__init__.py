"""Training, step: one version in MLflow's registry, whatever happens twice."""
