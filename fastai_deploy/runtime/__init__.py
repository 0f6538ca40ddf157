"""The code that ships in the container and the Lambda; it imports nothing else of the package.

The oldest Python in a supported container is 3.8, so the code here keeps to its syntax.
"""

import os

from .telemetry import switch_off

switch_off(os.environ)  # before any module imports a library that reports usage
