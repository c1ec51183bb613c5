"""AWS adapters: the one place of the portal where boto3 is known."""
