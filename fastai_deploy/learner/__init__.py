"""Read a learner without running it, examine it, rebuild it and convert it.

    file -> formats -> pickle_reader -> graph -> anatomy -> rebuilt -> onnx_export -> write_bundle
            what the bytes say          what the learner is    what it answers

Everything up to ``anatomy`` needs only the standard library; ``convert`` runs every step.
"""
