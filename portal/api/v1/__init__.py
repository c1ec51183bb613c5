"""/api/v1: the portal's own API."""
