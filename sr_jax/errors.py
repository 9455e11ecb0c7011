"""What people are told when something they gave is wrong."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
  """Something the person running the command can mend.

  The message is one sentence that names the input, what is wrong with it and what to do. The command
  line prints it alone and exits with code 2; nothing has been written.
  """


def choose(table: Mapping[str, T], name: str, key: str) -> T:
  """The entry `name` of a table, where `key` says which config key or flag holds the name."""
  if name in table:
    return table[name]
  near = difflib.get_close_matches(str(name), table, n=1)
  hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(map(repr, table))}."
  raise UserError(f"{key} is {name!r}, which does not exist: {hint}")
