"""What a person can mend."""


class UserError(Exception):
    """A mistake that a person can mend; the message is one line that names the file or option and the fix.

    Commands print it and exit with 1. Anything else that is raised is a bug, and keeps its traceback.
    """


def reason(error: BaseException) -> str:
    """Returns the first line of a library's error, or its name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
