"""The one exception that people are meant to read."""


class UserError(Exception):
  """Something the person running the command can mend.

  The message is one sentence that names the input, what is wrong with it and what to do. The command
  line prints it alone and exits with code 2; nothing has been written.
  """
