"""The prompt language. Order of processing: styles, comments, network tags, AND, schedules, attention,
tokens.
"""
