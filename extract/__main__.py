"""`python -m extract`: loads the commands, which takes a second or two, and runs one."""

from jelicit.commands.ending import ending_in_one_line, stopping_at_once
from jelicit.commands.gpu_memory import take_as_needed


def main() -> None:
    """Runs the command; however it ends, it ends in one line."""
    take_as_needed()
    with ending_in_one_line():
        with stopping_at_once():
            from extract import cli
        cli.main()


if __name__ == "__main__":
    main()
