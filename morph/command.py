"""A function of a configuration as a command: Hydra's options, one clear line for what a user can mend."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException, InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

__all__ = ["command"]

_CONF = str(Path(__file__).resolve().parent.parent / "conf")
_MENDABLE = (ValueError, OSError, HydraException, OmegaConfBaseException, MisconfigurationException)


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorator for an entry point: composes conf/<config_name>.yaml with the command line and calls the function.

    What a user can mend (ValueError, OSError, a wrong option) ends with one line on standard error and exit code 1;
    HYDRA_FULL_ERROR=1 shows where it came from.  A bug shows its traceback.
    """

    def decorate(run: Callable[[DictConfig], None]) -> Callable[[], None]:
        def guarded(config: DictConfig) -> None:
            try:
                run(config)
            except KeyboardInterrupt:
                sys.exit("interrupted")
            except _MENDABLE as error:
                if os.environ.get("HYDRA_FULL_ERROR", "0") != "0":
                    raise
                sys.exit(f"error: {_message(error)}")

        return hydra.main(version_base="1.3", config_path=_CONF, config_name=config_name)(guarded)

    return decorate


def _message(error: BaseException) -> str:
    # Hydra wraps what a constructor raised; the cause is what the user did.
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
