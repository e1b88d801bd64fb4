"""The methods, each a factory that composes parts with its recipe beside it, and the suites.

Every file here is loaded: a new method is one new file.
"""

from zoo.plugins import load_modules

load_modules(__name__, __path__)
