"""The published interface for programs: /inference, as an API Gateway in front of endpoints answers it."""
