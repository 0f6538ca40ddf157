"""The user's code in a learner, followed from a text to its answer without being run.

    follow.py              the way, part by part: text -> ids -> scores -> answer
      text_code.py           what transforms may do to a text and its ids
      model_code.py          what may be done around a transformer
      callback_code.py       what callbacks may do between their events
      loss_code.py           what a loss may do to make probabilities and labels
        semantics.py           what all of them may do
          interpreter.py         a function called with values; the budget
          paths.py               every path through it
          data_instructions.py, compute_instructions.py    what an instruction does
            frame.py               the function and the path that it works on
            values.py              what a variable stands for

The code itself comes from the pickle: objects.py finds the classes and functions that it stores by
value, bytecode.py decodes them with the tables of opcodes.py, and source.py compiles the sources
that torch before 1.6 stored.

A module imports only from those below it. Each step of the code is either understood, harmless but
unknown (``Unknown``), or not understood (``NotUnderstood``). An answer counts as proven only where
every step that it depends on is understood.
"""
