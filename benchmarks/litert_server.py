"""LiteRT for another process: python litert_server.py, with NumPy and ai_edge_litert and nothing of this project.

Reads calls from standard input, each a pickled (method, positional arguments, arguments by name), and writes what they
return, or the exception, to standard output. The method "Interpreter" opens a file; the others are those of the
interpreter that was opened last. This is what an emulated processor runs (`benchmarks.processor`).
"""

import os
import pickle
import sys
from typing import BinaryIO

from ai_edge_litert.interpreter import Interpreter


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """Answers until there is nothing more to read."""
    interpreter = None
    while calls.peek(1):
        method, positional, named = pickle.load(calls)
        answer = None
        try:
            if method == "Interpreter":
                interpreter = Interpreter(*positional, **named)
            else:
                answer = getattr(interpreter, method)(*positional, **named)
        except (RuntimeError, ValueError) as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints is no answer
    serve(sys.stdin.buffer, answers)
