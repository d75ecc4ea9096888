"""Runs a command on a terminal of its own, and types one text at each of its two prompts.

    terminal.py FIRST SECOND COMMAND ARGUMENT...

What the terminal shows goes to standard output, and which of its modes the command did not restore. The exit code is the command's.
"""

import os
import pty
import sys
import termios

first, second, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execv(command[0], command)
shown = b""
for prompt, keys in ((b"alice: ", first), (b"again: ", second)):
    while not shown.endswith(prompt):
        shown += os.read(terminal, 1024)
    os.write(terminal, keys.encode())
try:
    while chunk := os.read(terminal, 1024):
        shown += chunk
except OSError:
    pass  # The command has ended.
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.write(shown.decode())
modes = termios.tcgetattr(terminal)[3]
for name in ("ECHO", "ICANON", "ISIG"):
    if not modes & getattr(termios, name):
        sys.stdout.write(f"the terminal was left without {name}\n")
sys.exit(code)
