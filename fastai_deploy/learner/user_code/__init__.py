"""Follow the user's code in a learner, from a text to its answer, without running it.

    follow.py              each step: text -> ids -> scores -> answer
      text_code.py           what transforms may do to a text and its ids
      model_code.py          what the code around a transformer may do
      callback_code.py       what callbacks may do, event by event
      loss_code.py           how a loss may turn scores into probabilities and labels
        semantics.py           what all of them may do
          interpreter.py         a function called with values; the budget
          paths.py               every path through it
          data_instructions.py, compute_instructions.py    what each instruction does
            frame.py               the function and the path that an instruction works on
            values.py              the values of variables

The code comes from the pickle: objects.py finds the classes and functions that it stores by value,
bytecode.py decodes them, and source.py compiles the sources that torch before 1.6 stored.

A module imports only from those below it. Every step of the code is either understood, harmless but
unknown (``Unknown``), or not understood (``NotUnderstood``). An answer counts as proven only if
every step that it depends on is understood.
"""
