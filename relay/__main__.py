"""`python -m relay`: the same as the `relay` command.

Knows nothing but where the commands are.
"""

from relay.cli import main

if __name__ == "__main__":
    main()
