"""What people are told when something they gave is wrong."""

import difflib
import errno
import importlib
import os
import re
import signal
import traceback
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# Exit code of a run that SIGTERM or Ctrl-C ended well: the same command goes on. A process killed by SIGTERM
# has the same code, so a cluster needs one rule to start either again.
STOPPED = 128 + signal.SIGTERM
# Exit code after a fault of the machine or the network which the same command survives: clusters restart it.
TRY_AGAIN = 128 + signal.SIGALRM


class UserError(Exception):
  """Something the person running the command can fix.

  The message is one sentence that names the input, what is wrong with it and what to do. The command
  line prints it alone and exits with code 2; the same command goes on from what was written.
  """


class TryAgain(UserError):  # noqa: N818 (it says what to do)
  """A fault of the machine or the network, not of what was given; the exit code is TRY_AGAIN."""


class Diverged(UserError):  # noqa: N818 (it says what happened)
  """A training whose loss or state is not finite."""


class Busy(TryAgain):
  """A folder in which another program is training."""

  def __init__(self, folder: os.PathLike):
    super().__init__(f"Another training is working in {folder}: wait for it, or choose another --workdir.")


class Stopped(KeyboardInterrupt):
  """Ctrl-C or SIGTERM came when a training was at its end: its state is saved, what follows is not done."""


# What the machine may refuse, and what helps.
REMEDIES = {
  errno.ENOSPC: "free some space",
  errno.EDQUOT: "free some of your quota",
  errno.EFBIG: "allow larger files",
  errno.EROFS: "choose a folder that can be written",
  errno.EACCES: "give yourself access, or choose another place",
  errno.EPERM: "give yourself access, or choose another place",
  errno.ENAMETOOLONG: "choose a shorter name",
  errno.EIO: "check the disk",
  errno.ESTALE: "mount the folder again",
  errno.EMFILE: "raise the limit of `ulimit -n`",
  errno.ENOMEM: "take a smaller batch, or more memory",
}
PASSING = {errno.EIO, errno.ESTALE}  # of these, what may be over when the command is given again


# How a bucket's refusal looks: the errors of its clients, and of the libraries by which these (CLIENTS) reach
# it and others reach other things; TensorStore's.
BUCKETS = re.compile(
  r"^(gcsfs|google\.(auth|api_core|cloud))\.|OSError: Forbidden: |"
  r"(PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED|NOT_FOUND): .*[Gg][Cc][Ss]"
)
NETWORK = re.compile(r"^(aiohttp|requests)\.|^builtins\.(Connection\w*|Timeout)Error: |^fsspec\S*Timeout")
CLIENTS = re.compile(r"^(gcsfs|google\.(auth|cloud))\b")
# Those of them that are an outage; the others are about names and rights.
OUTAGE = re.compile(
  r"UNAVAILABLE|DEADLINE_EXCEEDED|TransportError|ServiceUnavailable|ServerError|BadGateway|GatewayTimeout|"
  r"TooManyRequests|RetryError|gcsfs\S*HttpError: .*\b(429|5\d\d)\b"
)
# How it looks when another process of the job, or the way to it, is gone.
PEERS = re.compile(
  r"JaxRuntimeError: .*(Gloo|NCCL|[Cc]oordination service|[Bb]arrier|[Hh]eartbeat|Connection \w+ by peer)",
  re.DOTALL,
)

SEE_PEERS = "see what ended the other processes"


class Refusal(NamedTuple):
  """What the machine refused, what helps, and whether it may be over by itself; "" if it refused nothing."""

  what: str = ""
  remedy: str = ""
  passes: bool = False


def explain(error: BaseException | None) -> Refusal:
  """What the machine, a bucket or the network refused, from the errors that led to `error`."""
  while error is not None:
    number, name = None, ""
    if isinstance(error, OSError):
      number, name = error.errno, error.filename or ""
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED: Out of memory" in str(error):
      number = errno.ENOMEM
    elif found := re.search(r"os_error_code='(\d+)'", str(error)):  # TensorStore's, by which Orbax writes
      number = int(found[1])
    if number in REMEDIES:
      return Refusal(os.strerror(number) + (name and f": {name}"), REMEDIES[number], number in PASSING)
    described = f"{type(error).__module__}.{type(error).__name__}: {error}"
    short = " ".join(str(error).split())[:300]
    of_network = bool(NETWORK.search(described) and _by_client(error))
    if of_network or BUCKETS.search(described):
      passes = of_network or bool(OUTAGE.search(described))
      return Refusal(short, "check the bucket, your credentials and the network", passes)
    if PEERS.search(described):
      return Refusal(short, SEE_PEERS, True)
    error = error.__cause__ or error.__context__
  return Refusal()


def exit_code(error: BaseException) -> int:
  """The exit code for an error that is told in a sentence: TRY_AGAIN if a retry may succeed, else 2."""
  return TRY_AGAIN if isinstance(error, TryAgain) or explain(error).passes else 2


def _by_client(error: BaseException) -> bool:
  """Whether it came through a client of buckets, or names an object of one."""
  frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
  return "gs://" in str(error) or any(CLIENTS.search(f.f_globals.get("__name__", "")) for f in frames)


def printable(text: str, kept: str = "") -> str:
  """The text, with escapes for what a terminal would obey and not show: a file's name may hold anything."""
  return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def tell(text: object) -> None:
  """Print lines that may hold names of files."""
  print(printable(str(text), kept="\n\t"), flush=True)


def choose(table: Mapping[str, T], name: str, key: str) -> T:
  """The entry `name` of a table, where `key` says which config key or flag holds the name.

  Raises:
    UserError: there is none; it says which name is near.
  """
  check_choice(table, name, key)
  return table[name]


def check_choice(names: Collection[str], name: str, key: str) -> None:
  """Refuse a name that is none of `names`, with the nearest right one; raises UserError, see `choose`."""
  if name in names:
    return
  near = difflib.get_close_matches(str(name), names, n=1)
  hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(map(repr, names))}."
  raise UserError(f"{key} is {name!r}, which does not exist: {hint}")


def find(table: Mapping[str, Any], name: str, key: str) -> Any:
  """As `choose`, or what "module:attribute" names in anybody's installed package."""
  if ":" not in name:
    return choose(table, name, key)
  module, _, attribute = name.partition(":")
  if not all(part.isidentifier() for part in (*module.split("."), attribute)):
    raise UserError(f"{key} is {name!r}, which names nothing in a module: write MODULE:NAME.")
  try:
    return getattr(importlib.import_module(module), attribute)
  except ModuleNotFoundError as error:
    raise UserError(
      f"{key} is {name!r}, but Python finds no module {error.name!r}: install its package, or name its "
      "folder in PYTHONPATH."
    ) from error
  except AttributeError as error:
    raise UserError(
      f"{key} is {name!r}, but the module {module} has no {attribute!r}: correct it."
    ) from error


def find_function(table: Mapping[str, Any], name: str, key: str) -> Any:
  """As `find`; raises UserError for what cannot be called."""
  found = find(table, name, key)
  if not callable(found):
    raise UserError(f"{key} is {name!r}, which is no function: correct it.")
  return found


def short_name(name: str) -> str:
  """What tables call "module:attribute": the attribute."""
  return name.rpartition(":")[2]
