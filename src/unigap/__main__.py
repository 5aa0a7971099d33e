"""`python -m unigap`, for launchers such as torchrun that start a module."""

from unigap.cli import main

if __name__ == "__main__":
    main()
