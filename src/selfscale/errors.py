"""The one exception that a user is meant to see."""


class UserError(Exception):
    """Something that the user can put right: bad settings, bad input, a missing server.

    The message is one line that names the file or key, what is wrong and what to do. The command
    line prints it on stderr and exits with code 2; a traceback is kept for our own mistakes.
    """
