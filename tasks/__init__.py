"""Task adapters: real data from the hub or a folder, the embedded laboratory, and the scales.

Every file here is loaded: a new task is one new file.
"""

from zoo.plugins import load_modules

load_modules(__name__, __path__)
