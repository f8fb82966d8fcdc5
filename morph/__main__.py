"""`morph <command>`: the entry points under one name."""

import runpy
import sys

_COMMANDS = {
    "train": "train a model on a mixture of data sets",
    "evaluate": "roll a checkpoint out on held-out data and measure its errors",
    "predict": "continue your own data with a checkpoint",
    "export": "write a checkpoint as config.json and safetensors",
    "benchmark": "measure speed and memory of the model on this machine",
    "replay": "find where a batch that training skipped stops being finite",
}


def main() -> None:
    """Hand the command line over to the entry point that it names.

    Raises:
        SystemExit: The command is unknown.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        lines = [f"  morph {command:<10} {purpose}" for command, purpose in _COMMANDS.items()]
        print(
            "usage: morph COMMAND [option=value ...]\n", *lines, "\nmorph COMMAND --help lists its options.", sep="\n"
        )
        return
    if name not in _COMMANDS:
        sys.exit(f"error: unknown command {name!r}; expected one of {', '.join(_COMMANDS)}")
    # As `python -m morph.<name>` would: launchers of further processes start those from what is seen here.
    sys.argv = [f"morph {name}", *sys.argv[2:]]
    runpy.run_module(f"morph.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
