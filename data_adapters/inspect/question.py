"""What the files do not say, asked back with the answers as commands that are ready to run."""

from collections.abc import Mapping

__all__ = ["Question"]


class Question(Exception):  # noqa: N818 - it is no error: nothing is wrong with the files
    """Something must not be guessed.

    Args:
        text: What is asked.
        answers: Options (or paths) that settle it, most likely first, each with what it means.
        replaces_paths: The answers stand in place of the path, and not behind it.
    """

    def __init__(self, text: str, answers: Mapping[str, str], *, replaces_paths: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.answers = dict(answers)
        self.replaces_paths = replaces_paths
