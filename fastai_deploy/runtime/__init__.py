"""What ships into the container and the Lambda; imports nothing of the rest of the package.

Python 3.8 is the oldest that a supported container has, so the code here keeps to its syntax.
"""

import os

from .telemetry import switch_off

switch_off(os.environ)  # before any module of the package can import a library that reports
