"""The inference worker: bodies of SageMaker's container contract in, stored pictures out."""
