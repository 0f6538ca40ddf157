"""Learners: read without being executed, examined, rebuilt and converted.

    file -> archive -> pickle_machine -> views -> anatomy -> rebuilt -> onnx_export -> publish
            what the bytes say            what it is          what it answers

Everything up to ``anatomy`` needs the standard library alone; ``convert`` runs the whole line.
"""
