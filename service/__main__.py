"""`python -m service`: the command `kfp-triggers`."""

from service.cli import main

if __name__ == "__main__":
    main()
