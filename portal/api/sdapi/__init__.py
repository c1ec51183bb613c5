"""/sdapi/v1: the API of AUTOMATIC1111 v1.10.1, for its programs unchanged. Basic or bearer, never the
cookie.
"""
