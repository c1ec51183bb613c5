"""The web UI: forms and layout on the CPU. It holds no secret, no database and no model; the portal answers
for all of that.
"""
