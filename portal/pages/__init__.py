"""The portal's own pages: the login, and what administrators look after. Jinja2, no scripts but one's own, no
state.
"""
