"""`python -m data_adapters.inspect`."""

from data_adapters.inspect.command import main

if __name__ == "__main__":
    main()
