"""`python -m neuralsdf` is the `neuralsdf` command."""

from .cli.entry_point import main

if __name__ == "__main__":
    main()
