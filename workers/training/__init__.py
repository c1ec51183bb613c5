"""Training: recipes, and the program that runs them as a SageMaker training job or behind an endpoint."""
