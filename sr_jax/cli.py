"""The program sr-jax: its output, and what becomes of errors."""

import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from sr_jax.arguments import make_parser
from sr_jax.errors import STOPPED, Stopped, UserError, exit_code, explain, printable
from sr_jax.files import absolute


class _Lines(logging.Formatter):
  def format(self, record: logging.LogRecord) -> str:
    return printable(super().format(record), kept="\n\t")


def _prepare_output() -> None:
  # Our own lines, without the libraries' chatter; what Orbax logs by absl, and gcsfs, is raised as well.
  logging.basicConfig(level=logging.WARNING)
  for handler in logging.getLogger().handlers:
    handler.setFormatter(_Lines("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
  logging.getLogger("sr_jax").setLevel(logging.INFO)
  for library in ("absl", "asyncio", "gcsfs"):
    logging.getLogger(library).setLevel(logging.CRITICAL)
  for stream in (sys.stdout, sys.stderr):  # whose encoding may lack the arrows of a table
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command line.

  Returns:
    The exit code: 0; 2 for what the user can fix; STOPPED; TRY_AGAIN for a fault of the machine or network
    which the same command survives; 130 for Ctrl-C outside of a training; 1 for an error of the program's, or
    a sweep with a trial that failed.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  arguments, overrides = make_parser().parse_known_args(argv)
  arguments.command = shlex.join(["sr-jax", *argv])
  _prepare_output()
  # Modules of the user's in the folder where the command runs, after all installed ones.
  sys.path.append(os.getcwd())
  try:
    # One spelling of a folder for all that reads and writes there.
    for name in ("workdir", "out"):
      if getattr(arguments, name, None):
        setattr(arguments, name, str(absolute(getattr(arguments, name), f"--{name}")))
    return arguments.run(arguments, overrides)
  except UserError as error:
    code, reason = exit_code(error), str(error)
    shown = f"sr-jax: {printable(reason)}"
  except BrokenPipeError:  # whoever reads the output has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except Stopped:
    print("Stopped; the same command goes on from there.")
    return STOPPED
  except KeyboardInterrupt:
    code, reason = 130, "interrupted; what was saved stays, and the same command goes on."
    shown = f"sr-jax: {reason}"
  except Exception as error:
    code, reason, shown = (
      1,
      f"{type(error).__name__}: {error}",
      printable(traceback.format_exc().rstrip(), "\n"),
    )
    refusal = explain(error)
    if refusal.what:
      code, reason = exit_code(error), f"{refusal.what}: {refusal.remedy}, then give the same command again."
      shown = f"sr-jax: {printable(reason)}"
  if getattr(arguments, "distributed", None):
    from sr_jax import processes

    processes.end(code, reason, shown)
  print(shown, file=sys.stderr)
  return code


if __name__ == "__main__":
  sys.exit(main())
