"""`python -m neuralsdf` is the `neuralsdf` command."""

from .cli.start import main

if __name__ == "__main__":
    main()
