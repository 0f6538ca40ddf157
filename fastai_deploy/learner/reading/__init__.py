"""Reading a learner file: bytes to a graph of plain records, with bounds on everything."""
