"""What every part of Atelier agrees on: wire models, prompt language, infotext, storage. No torch, no web
framework.
"""

__version__ = "0.1.0"
