"""Read a learner file into a graph of plain records. Nothing in the file is run.

formats        start here: open a learner of any format
pickle_reader  read one pickle, opcode by opcode, within bounds
graph          what a pickle describes, and functions to inspect it
tensors        storages and the tensors that view them
zip_directory  the members of a zip, read strictly
sources        bytes: a file, a part of one, bytes in memory, a stream over them
"""
