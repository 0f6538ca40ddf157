"""What ships into the container and the Lambda; imports nothing of the rest of the package.

Python 3.8 is the oldest that a supported container has, so the code here keeps to its syntax.
"""
